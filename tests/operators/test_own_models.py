"""Models as people have them: a loss of their own, padded texts, tied weights, adapters, checkpoints; and blocks."""

import copy
import warnings

import pytest
import torch
from language_model import BatchEncoding, CausalLM, collate, loader, loss_fn, num_labels, texts
from torch import nn
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab.operators import HessianOperator


def dense_hessian_of(model, batch, loss=loss_fn):
    """By double backward over the parameters that can be trained, each once."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        gradient = torch.autograd.grad(loss(model, batch), parameters, create_graph=True)
        flat = torch.cat([part.reshape(-1) for part in gradient])
        rows = [torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True) for entry in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def exactly(operator, expected):
    """Three products, which no other matrix of these models has; each entry would take a product of its own."""
    vectors = torch.randn(len(expected), 3, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(operator @ vectors, expected @ vectors, rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module")
def model():
    return CausalLM().double().eval()


@pytest.fixture(scope="module")
def whole():
    return collate(texts())


@pytest.fixture(scope="module")
def expected(model, whole):
    return dense_hessian_of(model, whole)


def rows_of(model, *names):
    """Which entries of the flat vector belong to these parameters."""
    return torch.cat([torch.full((p.numel(),), name in names) for name, p in model.named_parameters()]).nonzero()[:, 0]


# ---------------------------------------------------------------- outputs.loss, padding, tied embeddings


def test_a_model_with_a_loss_of_its_own_and_tied_embeddings(model, whole, expected):
    H = HessianOperator(model, loss_fn, whole)
    exactly(H, expected)
    assert H.dim == sum(parameter.numel() for parameter in model.parameters())
    assert "transformer.wte.weight" in H.parameter_names
    assert "lm_head.weight" not in H.parameter_names
    assert isinstance(H.batches[0].content, BatchEncoding)
    assert {tensor.dtype for tensor in H.batches[0].content.values()} == {torch.int64}


def test_a_loader_that_pads_each_batch_gives_the_mean_over_all_labels(model, expected):
    H = HessianOperator(model, loss_fn, loader(), batch_mass=num_labels)
    exactly(H, expected)
    assert H.total_mass == sum(len(text) - 1 for text in texts())


def test_micro_batches_of_padded_texts(model, whole, expected):
    exactly(HessianOperator(model, loss_fn, whole, batch_mass=num_labels, micro_batch_size=2), expected)


def test_boolean_masks_stay_masks(model, whole, expected):
    batch = BatchEncoding({**whole, "attention_mask": whole["attention_mask"].bool()})
    H = HessianOperator(model, loss_fn, batch)
    assert H.batches[0].content["attention_mask"].dtype == torch.bool
    exactly(H, expected)


def test_the_message_names_the_mass_that_the_loss_has(model):
    named = r'Pass batch_mass=lambda batch: \(batch\["labels"\]\[:, 1:\] != -100\).sum\(\), which the loss agrees with'
    same_length = [collate(texts()[:3], 8), collate(texts()[3:], 8)]
    with pytest.raises(ValueError, match=named):
        HessianOperator(model, loss_fn, same_length)
    with pytest.raises(ValueError, match=f"differ in shape beyond the first dimension.*{named}"):
        HessianOperator(model, loss_fn, [collate(texts((5, 5))), collate(texts((7, 3)))])


def test_a_mass_without_the_shift_is_refused(model):
    with pytest.raises(ValueError, match=r"batch_mass is not the denominator.*\[:, 1:\] != -100\).sum\(\), which"):
        HessianOperator(model, loss_fn, loader(), batch_mass=lambda batch: (batch["labels"] != -100).sum())


def test_texts_of_one_length_within_each_batch_are_noticed(model):
    sorted_by_length = [collate(texts((4, 4, 4)), 9), collate(texts((9, 9)), 9)]
    with pytest.raises(ValueError, match=r"is not a mean over the samples.*Pass batch_mass="):
        HessianOperator(model, loss_fn, sorted_by_length)
    with pytest.raises(ValueError, match="batch_mass is not the denominator"):
        HessianOperator(model, loss_fn, sorted_by_length, batch_mass=lambda batch: (batch["labels"] != -100).sum())


def test_a_mean_over_texts_is_accepted_whatever_their_length(model):
    def mean_over_texts(model, batch):
        scores = model(batch["input_ids"], batch["attention_mask"]).logits[:, :-1].transpose(1, 2)
        each = F.cross_entropy(scores, batch["labels"][:, 1:], reduction="none").sum(1)
        return (each / (batch["labels"][:, 1:] != -100).sum(1)).mean()

    batches = [collate(texts((4, 4, 4)), 9), collate(texts((9, 8)), 9)]
    H = HessianOperator(model, mean_over_texts, batches)
    assert H.loss == pytest.approx(sum(mean_over_texts(model, b).item() * len(b["labels"]) for b in batches) / 5)


def test_masses_of_a_loss_that_is_no_mean_over_samples_are_left_to_the_user():
    def contrastive(model, batch):
        outputs = model(batch["x"])
        return F.cross_entropy(outputs @ outputs.T, batch["labels"])

    torch.manual_seed(0)
    batches = [{"x": torch.randn(n, 3).double(), "labels": torch.arange(n)} for n in (4, 3)]
    H = HessianOperator(nn.Linear(3, 2).double(), contrastive, batches, batch_mass=lambda batch: len(batch["x"]))
    assert H.total_mass == 7


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda model, batch: model(**batch), ValueError, r"return its loss, as in .*model\(\*\*batch\).loss"),
        (
            lambda model, batch: model(batch["input_ids"], batch["attention_mask"]).loss,
            ValueError,
            "got NoneType; models that compute their own loss do so only for batches with labels",
        ),
        (lambda model, batch: model(batch["ids"]), ValueError, r"keys 'input_ids': \(5, 7\) torch.int64.*KeyError"),
    ],
)
def test_losses_that_fail_say_what_the_batch_holds(model, whole, call, error, match):
    with pytest.raises(error, match=match):
        HessianOperator(model, call, whole)


def test_inputs_in_a_dictionary_for_a_model_that_takes_keywords(model, whole):
    inputs = {"input_ids": whole["input_ids"], "attention_mask": whole["attention_mask"]}
    with pytest.raises(TypeError, match=r"loss\(model\(\*\*batch\[0\]\), batch\[1\]\)"):
        HessianOperator(model, F.cross_entropy, (inputs, whole["labels"]))


def test_a_mass_that_fails_says_what_the_batch_holds(model, whole):
    with pytest.raises(ValueError, match=r"batch_mass fails for a batch with the keys 'input_ids'.*KeyError: 'label'"):
        HessianOperator(model, loss_fn, whole, batch_mass=lambda batch: (batch["label"] != -100).sum())


# ---------------------------------------------------------------- precision


def test_a_loss_in_single_precision_is_stated(whole):
    with pytest.warns(UserWarning, match="weights are torch.float64.*partly in torch.float32"):
        H = HessianOperator(CausalLM(loss_dtype=torch.float32).double(), loss_fn, whole)
    assert H.precision == "float64 on cpu, partly in float32"
    assert H.eps == torch.finfo(torch.float32).eps
    expected = HessianOperator(CausalLM().double(), loss_fn, whole)
    assert expected.eps == torch.finfo(torch.float64).eps
    vector = torch.ones(H.dim).double()
    torch.testing.assert_close(H @ vector, expected @ vector, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        H.restricted("lm_head", H.batches)


@pytest.mark.filterwarnings("ignore:the weights are")
def test_finite_differences_take_their_step_from_the_precision_of_the_loss(model, whole, expected):
    rounded = CausalLM(loss_dtype=torch.float32).double()
    vector = torch.randn(len(expected), generator=torch.Generator().manual_seed(0)).double()
    found = HessianOperator(rounded, loss_fn, whole, method="finite_difference") @ vector
    torch.testing.assert_close(found, expected @ vector, rtol=0, atol=2e-3 * float((expected @ vector).norm()))


def test_half_precision_in_a_later_batch_is_refused():
    class Mixed(nn.Linear):
        def forward(self, x):
            return (super().forward(x.bfloat16().float()) if len(x) < 4 else super().forward(x)).to(
                torch.float32 if len(x) > 2 else torch.bfloat16
            )

    batches = [(torch.randn(n, 3), torch.arange(n) % 2) for n in (4, 2)]
    with pytest.raises(ValueError, match=r"computes in torch.bfloat16"):
        HessianOperator(Mixed(3, 2), F.cross_entropy, batches)


# ---------------------------------------------------------------- adapters


class Adapted(nn.Module):
    """A frozen layer with a trainable change of low rank, as `peft` makes them."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(layer.in_features, 2, False), nn.Linear(2, layer.out_features, False)

    def forward(self, x):
        known = self.base_layer(x)
        return known + self.lora_B(self.lora_A(x.to(self.lora_A.weight.dtype))).to(known.dtype)


class Wrapped(nn.Module):
    """The names of `peft`: base_model.model in front."""

    def __init__(self, model):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model

    def forward(self, **batch):
        return self.base_model.model(**batch)


def with_adapters(model):
    torch.manual_seed(1)
    model.requires_grad_(False)
    for block in model.transformer.h:
        block.attn.c_attn = Adapted(block.attn.c_attn)
    return Wrapped(model)


class EightBits(nn.Module):
    """A frozen layer whose weights are stored in eight bits, with a scale for each row."""

    def __init__(self, layer):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.scale = nn.Buffer(scale)
        self.weight = nn.Parameter((layer.weight.detach() / scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))


def test_only_the_adapters_are_measured(whole):
    model = with_adapters(CausalLM()).double()
    H = HessianOperator(model, loss_fn, whole)
    exactly(H, dense_hessian_of(model, whole))
    assert {name.split(".")[-2] for name in H.parameter_names} == {"lora_A", "lora_B"}
    assert list(H.blocks("*.c_attn")) == [f"base_model.model.transformer.h.{i}.attn.c_attn" for i in (0, 1)]
    assert list(H.blocks("transformer.h.*")) == ["base_model.model.transformer.h.0", "base_model.model.transformer.h.1"]
    assert H.restricted("transformer.h.1").dim == H.dim // 2


def test_adapters_on_a_base_in_half_precision_are_refused_with_the_fix(whole):
    base = CausalLM().bfloat16()
    model = with_adapters(base)
    for block in base.transformer.h:
        block.attn.c_attn.lora_A.float(), block.attn.c_attn.lora_B.float()
    with pytest.raises(ValueError, match=r"wte.weight' and \d+ more are torch.bfloat16: call model.float\(\)"):
        HessianOperator(model, loss_fn, whole)
    assert HessianOperator(model.float(), loss_fn, whole).precision == "float32 on cpu"


def test_adapters_on_a_base_in_eight_bits():
    torch.manual_seed(0)
    layers = [Adapted(EightBits(nn.Linear(3, 4))), nn.Tanh(), Adapted(EightBits(nn.Linear(4, 3)))]
    model, batch = nn.Sequential(*layers).double(), (torch.randn(6, 3).double(), torch.arange(6) % 3)

    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    exactly(HessianOperator(model, F.cross_entropy, batch), dense_hessian_of(model, batch, loss))


def test_a_model_without_trainable_parameters_names_a_few_of_them(whole):
    with pytest.raises(ValueError, match=r"selects no trainable parameter; .*lm_head.weight.* and \d+ more are frozen"):
        HessianOperator(CausalLM().requires_grad_(False), loss_fn, whole)


# ---------------------------------------------------------------- gradient checkpointing


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gradient_checkpointing_changes_nothing(model, whole, expected, mode):
    checkpointed = copy.deepcopy(model).train()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    H = HessianOperator(checkpointed, loss_fn, whole, mode=mode)
    exactly(H, expected)
    assert checkpointed.training


def test_reentrant_checkpoints_are_refused_also_behind_frozen_layers(whole):
    fix = r'use_reentrant=False to torch.*gradient_checkpointing_kwargs=\{"use_reentrant": False\}'
    for model in (CausalLM(), with_adapters(CausalLM())):
        plain = model if isinstance(model, CausalLM) else model.base_model.model
        plain.gradient_checkpointing_enable({"use_reentrant": True})
        with pytest.raises(ValueError, match=f"use_reentrant=True.*{fix}"):
            HessianOperator(model, loss_fn, whole, mode="train")


# ---------------------------------------------------------------- blocks

ATTENTION = ["attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias"]


@pytest.fixture(scope="module")
def H(model, whole):
    return HessianOperator(model, loss_fn, whole)


def test_a_pattern_gives_one_block_for_each_matched_module(model, H, expected):
    blocks = H.blocks("transformer.h.*.attn")
    assert list(blocks) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    for name, block in blocks.items():
        rows = rows_of(model, *(f"{name.removesuffix('.attn')}.{part}" for part in ATTENTION))
        exactly(block, expected[rows][:, rows])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, None),
        ("*", ["transformer", "lm_head"]),
        ("transformer.h.*", ["transformer.h.0", "transformer.h.1"]),
        ("*.h.0.attn.*", ["transformer.h.0.attn.c_attn", "transformer.h.0.attn.c_proj"]),
        ("*.0.*.c_proj.*", ["transformer.h.0.attn.c_proj.weight", "transformer.h.0.attn.c_proj.bias"]),
        ("*.ln_1.weight", ["transformer.h.0.ln_1.weight", "transformer.h.1.ln_1.weight"]),
        ("transformer.wpe.weight", ["transformer.wpe.weight"]),
        ("lm_head", ["lm_head"]),
        ("lm_head.*", ["lm_head.weight"]),
    ],
)
def test_names_of_blocks(H, pattern, names):
    blocks = H.blocks(pattern)
    assert list(blocks) == list(names or H.parameter_names)


def test_a_tied_weight_belongs_to_each_module_that_uses_it(model, H, expected):
    rows = rows_of(model, "transformer.wte.weight")
    for block in H.blocks([model.lm_head, model.transformer.wte]).values():
        exactly(block, expected[rows][:, rows])


def test_lists_and_mappings_of_blocks(model, H):
    first = model.transformer.h[0]
    entries = H.blocks([first, "*.mlp.*", model.transformer.wpe.weight])
    assert list(entries) == ["transformer.h.0", "*.mlp.*", "transformer.wpe.weight"]
    assert entries["*.mlp.*"].parameter_names == H.restricted("*.mlp.*").parameter_names
    assert [block.dim for block in H.blocks(model).values()] == [H.dim]
    assert list(H.blocks(first)) == ["transformer.h.0"]
    named = H.blocks({"both": ["*.attn", "lm_head"], "first": first})
    assert named["both"].parameter_names == H.restricted(["*.attn", "lm_head"]).parameter_names
    assert named["first"].dim == entries["transformer.h.0"].dim


def test_a_block_holds_only_parameters_of_the_operator(model, whole):
    H = HessianOperator(model, loss_fn, whole, params="*.weight")
    assert all(name.endswith(".weight") for block in H.blocks("*.attn").values() for name in block.parameter_names)


@pytest.mark.parametrize(
    ("selection", "error", "match"),
    [
        ("h.*.attn", ValueError, r"did you mean '\*\.h\.\*\.attn'"),
        ("nothing", ValueError, r"is not the name of a parameter or module of the model; there are .* and \d+ more"),
        (["*.attn", "nothing"], ValueError, "'nothing' is not the name"),
        ([], ValueError, "the list is empty"),
        ({"none": []}, ValueError, "params is empty"),
        ([["*.attn"]], TypeError, r"pass a mapping \{name"),
        (3, TypeError, "blocks must be given by a pattern.*got int"),
        ([nn.Linear(2, 2)], ValueError, "a Linear among the blocks is not a part of the model"),
        (nn.Tanh(), ValueError, "a Tanh among the blocks is not a part of the model"),
    ],
)
def test_blocks_that_there_are_not(H, selection, error, match):
    with pytest.raises(error, match=match):
        H.blocks(selection)


def test_blocks_outside_of_the_operator(model, whole):
    H = HessianOperator(model, loss_fn, whole, params="*.weight")
    for selection in ("*.c_proj.bias", ["*.c_proj.bias"]):
        with pytest.raises(ValueError, match=r"none of the operator's parameters, which are transformer.wte.weight"):
            H.blocks(selection)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_blocks_of_compiled_parts_have_the_names_of_the_plain_ones():
    model = nn.Sequential(torch.compile(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))), nn.Linear(2, 2))
    H = HessianOperator(model, F.cross_entropy, (torch.randn(4, 3), torch.arange(4) % 2))
    assert {name: block.dim for name, block in H.blocks("0").items()} == {"0": 14}
    assert [block.dim for block in H.blocks("0.0").values()] == [8]
    assert [block.dim for block in H.blocks("0.*").values()] == [8, 6]


def test_a_report_of_named_blocks(model, H, whole):
    options = {"alphas": [1.5], "num_matvecs": 5, "perturbation_samples": 1}
    report = rl.sharpness_report(model, loss_fn, whole, blocks={"attention": "*.attn"}, **options)
    assert report.blocks == ("whole", "attention")
    block = rl.estimate_spectrum(H.restricted("*.attn"), num_matvecs=5)
    assert report["trace", "attention"].value == pytest.approx(block.trace.value, rel=1e-6)


# ---------------------------------------------------------------- the real ones


def check_against_gradients(operator, step=1e-5):
    """A product against a central difference of gradients."""
    direction = torch.randn(operator.dim, generator=torch.Generator().manual_seed(0)).to(operator.dtype)
    direction /= direction.norm()
    parts = operator.unflatten(direction)

    def gradient_at(shift):
        with torch.no_grad():
            for parameter, part in zip(operator.parameters.values(), parts, strict=True):
                parameter += shift * part
        return operator.gradient()

    difference = (gradient_at(step) - gradient_at(-2 * step)) / (2 * step)
    gradient_at(step)
    torch.testing.assert_close(operator @ direction, difference, rtol=0, atol=1e-6 * float(difference.norm()))


def from_logits(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


def gpt2(transformers):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=12, n_embd=4, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.filterwarnings("ignore")
def test_gpt2_of_transformers(whole):
    transformers = pytest.importorskip("transformers")
    model = gpt2(transformers).double()
    batch = transformers.BatchEncoding(dict(whole))
    check_against_gradients(HessianOperator(model, from_logits, batch))
    H = HessianOperator(model, loss_fn, loader(), batch_mass=num_labels)
    assert (H.eps, H.loss) == (torch.finfo(torch.float32).eps, pytest.approx(loss_fn(model.eval(), whole).item()))
    assert list(H.blocks("*.attn")) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    with pytest.raises(ValueError, match="Pass batch_mass="):
        HessianOperator(model, loss_fn, loader())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_against_gradients(HessianOperator(model, from_logits, batch, mode="train"))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(ValueError, match="use_reentrant"):
        HessianOperator(model, from_logits, batch, mode="train")


@pytest.mark.filterwarnings("ignore")
def test_adapters_of_peft(whole):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    H = HessianOperator(peft.get_peft_model(gpt2(transformers), config).double(), from_logits, whole)
    check_against_gradients(H)
    assert [block.dim for block in H.blocks("*.c_attn").values()] == [32, 32]
