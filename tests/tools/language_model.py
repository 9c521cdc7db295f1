"""A small language model that is used as those of the package transformers are, and batches of padded texts for it."""

from collections import UserDict
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

WORDS = 11


class BatchEncoding(UserDict):
    """What tokenizers and collators return: a dictionary that is none, whose entries are attributes too."""

    def __getattr__(self, name):
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device):
        self.data = {name: tensor.to(device) for name, tensor in self.data.items()}
        return self


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, mask):
        queries, keys, values = self.c_attn(x).chunk(3, dim=-1)
        return self.c_proj(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(x)


class Transformer(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, width), nn.Embedding(12, width)
        self.h = nn.ModuleList(Block(width) for _ in range(depth))
        self.use_reentrant = None

    def forward(self, input_ids, attention_mask):
        length = input_ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril() & attention_mask.bool()[:, None, :]
        x = self.wte(input_ids) + self.wpe(torch.arange(length))
        for block in self.h:
            if self.use_reentrant is None or not self.training:
                x = block(x, mask)
            else:
                x = checkpoint(block, x, mask, use_reentrant=self.use_reentrant)
        return x


class CausalLM(nn.Module):
    """Embeddings tied to the last layer; the loss shifts labels by one and averages over those that are not -100."""

    def __init__(self, width=4, depth=2, loss_dtype=None):
        super().__init__()
        torch.manual_seed(0)
        self.transformer = Transformer(width, depth)
        self.lm_head = nn.Linear(width, WORDS, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        self.loss_dtype = loss_dtype

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs):
        self.transformer.use_reentrant = gradient_checkpointing_kwargs["use_reentrant"]

    def forward(self, input_ids, attention_mask, labels=None):
        logits = self.lm_head(self.transformer(input_ids, attention_mask))
        scores = logits if self.loss_dtype is None else logits.to(self.loss_dtype)
        loss = None if labels is None else F.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=loss, logits=logits)


def collate(texts, length=None):
    """Texts padded to the longest, or to ``length``; labels of padding are -100."""
    shape = len(texts), length or max(map(len, texts))
    batch = BatchEncoding(
        input_ids=torch.zeros(shape, dtype=torch.int64),
        attention_mask=torch.zeros(shape, dtype=torch.int64),
        labels=torch.full(shape, -100),
    )
    for row, text in enumerate(texts):
        batch["input_ids"][row, : len(text)] = batch["labels"][row, : len(text)] = torch.tensor(text)
        batch["attention_mask"][row, : len(text)] = 1
    return batch


def texts(lengths=(4, 7, 5, 3, 6)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, WORDS, (length,), generator=generator).tolist() for length in lengths]


def loader(batch_size=2):
    return DataLoader(texts(), batch_size=batch_size, collate_fn=collate)


def loss_fn(model, batch):
    return model(**batch).loss


def num_labels(batch):
    return (batch["labels"][:, 1:] != -100).sum()
