"""Which outputs and targets have an accuracy, and that the data are left alone."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from renyi_lab.training import evaluate, train


class Given(nn.Module):
    """Returns its inputs, unchanged; with a weight, so that it can be trained."""

    def __init__(self, flat=False):
        super().__init__()
        self.scale, self.flat = nn.Parameter(torch.ones(())), flat

    def forward(self, x):
        outputs = self.scale * x
        return outputs.squeeze(-1) if self.flat else outputs


LOGITS = torch.tensor([[2.0], [0.1], [-0.1], [-3.0], [0.5]])
LABELS = torch.tensor([[1.0], [0.0], [0.0], [1.0], [1.0]])  # the second and the fourth are wrong
LOSSES = {
    "logits": (LOGITS, nn.BCEWithLogitsLoss()),
    "logits, weighted": (LOGITS, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))),
    "logits, function": (LOGITS, F.binary_cross_entropy_with_logits),
    "logits, partial": (LOGITS, partial(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(3.0))),
    "probabilities": (LOGITS.sigmoid(), nn.BCELoss()),
    "probabilities, function": (LOGITS.sigmoid(), F.binary_cross_entropy),
}


@pytest.mark.parametrize("flat", [True, False], ids=["(N,)", "(N, 1)"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_binary_classifier_has_an_accuracy(name, flat):
    x, loss_fn = LOSSES[name]
    data = (x, LABELS.squeeze(1) if flat else LABELS)
    assert evaluate(Given(flat), data, loss_fn=loss_fn, batch_size=2).accuracy == pytest.approx(3 / 5)
    history = train(Given(flat), data, loss_fn=loss_fn, epochs=1, batch_size=5, test_set=data, lr=1e-6)
    assert history.train_accuracy == history.test_accuracy == (pytest.approx(3 / 5),)


NO_LABELS = {
    "soft labels": (LOGITS, 0.9 * LABELS, nn.BCEWithLogitsLoss()),
    "soft labels in one batch": (LOGITS, torch.tensor([[1.0], [0.0], [0.0], [0.5], [1.0]]), nn.BCEWithLogitsLoss()),
    "several outputs": (LOGITS.expand(5, 2), LABELS.expand(5, 2), nn.BCEWithLogitsLoss()),
    "another loss": (LOGITS, LABELS, nn.MSELoss()),
    "class probabilities": (LOGITS.expand(5, 2), LABELS.expand(5, 2), nn.CrossEntropyLoss()),
}


@pytest.mark.parametrize("name", NO_LABELS)
def test_there_is_no_accuracy_without_labels(name):
    x, y, loss_fn = NO_LABELS[name]
    assert evaluate(Given(), (x, y), loss_fn=loss_fn, batch_size=2).accuracy is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_labels_of_every_integer_type_are_class_labels(dtype):
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert evaluate(Given(), (x, torch.tensor([0, 1, 1]).to(dtype))).accuracy == pytest.approx(2 / 3)


class Samples(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


@pytest.mark.parametrize("wrap", [lambda x, y: (x, y), Samples], ids=["tensors", "data set"])
def test_inputs_that_require_gradients_keep_their_own(wrap):
    x, y = torch.randn(6, 2).requires_grad_(), torch.rand(6, 2).requires_grad_()
    x.grad, y.grad = torch.full_like(x, 7.0), torch.full_like(y, 7.0)
    data = wrap(x, y)
    train(Given(), data, loss_fn=nn.MSELoss(), epochs=1, test_set=data)
    evaluate(Given(), data, loss_fn=nn.MSELoss())
    assert (x.requires_grad, y.requires_grad) == (True, True)
    assert torch.equal(x.grad, torch.full_like(x, 7.0))
    assert torch.equal(y.grad, torch.full_like(y, 7.0))


def test_complex_outputs_have_no_accuracy():
    x, y = torch.ones(3, 2, dtype=torch.complex64), torch.tensor([0, 1, 0])
    assert evaluate(Given(), (x, y), loss_fn=lambda outputs, y: outputs.abs().mean()).accuracy is None
