// The page of an explorer tells its height, which depends on its width; its frame follows.
addEventListener("message", event => {
  const height = event.data?.explorerHeight;
  for (const frame of document.querySelectorAll("iframe.explorer"))
    if (frame.contentWindow === event.source && Number.isFinite(height)) frame.height = height;
});
