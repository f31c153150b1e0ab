"""The closed form against autograd and finite differences, for every activation and objective."""

import numpy as np
import pytest
import torch
from marking import slow_but
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gaussian_nll_loss, huber_loss

from sk_mlp._compute.device import PRECISIONS
from sk_mlp._compute.kernels import onednn_baddbmm, onednn_bmm, products_for
from sk_mlp._network.activations import ACTIVATIONS
from sk_mlp._network.autograd import IN_TRAINING, Autograd, MaskedDropout, trained_parameters
from sk_mlp._network.backprop import Backprop
from sk_mlp._network.batch import Batch, DenseRows
from sk_mlp._network.closed_form import ClosedForm
from sk_mlp._network.forward import DroppedHidden, Hidden
from sk_mlp._network.init import draw_weights
from sk_mlp._network.layout import Layout
from sk_mlp._network.module_network import ModuleNetwork
from sk_mlp._network.modules import build_module
from sk_mlp._network.network import Buffers, pack
from sk_mlp._network.values import Weights
from sk_mlp._objective import (
    REGRESSION_LOSSES,
    BinaryCrossEntropy,
    CrossEntropy,
    CustomLoss,
    MultilabelCrossEntropy,
    SquaredError,
    regression_objective,
    standard_deviation,
)
from sk_mlp._training.pool import SparsePool

CPU = torch.device("cpu")
FLOAT64 = products_for(torch.float64, CPU, 0)
SIZES, N, K = (5, 7, 6, 4), 11, 3
QUANTILE, DELTA, SMOOTHING, RATE = 0.3, 0.7, 0.2, 0.4
OBJECTIVES = {
    "binary": BinaryCrossEntropy(),
    "binary, smoothed": BinaryCrossEntropy(SMOOTHING),
    "multiclass": CrossEntropy(),
    "multiclass, smoothed": CrossEntropy(SMOOTHING),
    **{name: regression_objective(name, QUANTILE, DELTA) for name in sorted(REGRESSION_LOSSES)},
    "custom": CustomLoss(lambda raw, target: (raw - target).square().sum(1) / 2, SquaredError()),
}
# Each loss of rows `(n,)` for raw predictions `(n, n_outputs)`, as PyTorch has it or as it is defined.
REFERENCE = {
    "binary": lambda z, y: binary_cross_entropy_with_logits(z, y, reduction="none").sum(1),
    "binary, smoothed": lambda z, y: REFERENCE["binary"](z, y * (1 - SMOOTHING) + SMOOTHING / 2),
    "multiclass": lambda z, y: cross_entropy(z, y[:, 0], reduction="none"),
    "multiclass, smoothed": lambda z, y: cross_entropy(z, y[:, 0], reduction="none", label_smoothing=SMOOTHING),
    "squared_error": lambda z, y: 0.5 * (z - y).square().sum(1),
    "custom": lambda z, y: 0.5 * (z - y).square().sum(1),
    "absolute_error": lambda z, y: (z - y).abs().sum(1),
    "quantile": lambda z, y: torch.maximum(QUANTILE * (y - z), (1 - QUANTILE) * (z - y)).sum(1),
    "huber": lambda z, y: huber_loss(z, y, reduction="none", delta=DELTA).sum(1),
    "poisson": lambda z, y: (z.exp() - y * z + torch.xlogy(y, y) - y).sum(1),
    "gamma": lambda z, y: (z + y * (-z).exp() - y.log() - 1).sum(1),
    "gaussian_nll": lambda z, y: gaussian_nll_loss(z[:, :2], y, z[:, 2:].exp() + 1e-12, eps=0.0, reduction="none").sum(
        1
    ),
}


def make_target(name, rng):
    """Targets `(k, n_outputs, n)`."""
    n_outputs = SIZES[-1] // OBJECTIVES[name].n_raw
    if name.startswith("multiclass"):
        return torch.from_numpy(rng.randint(SIZES[-1], size=(K, 1, N)))
    draw = {
        "binary": lambda shape: rng.randint(2, size=shape),
        "poisson": lambda shape: rng.poisson(1.5, size=shape),
        "gamma": lambda shape: rng.gamma(2.0, size=shape),
    }
    values = draw.get(name.split(",")[0], lambda shape: rng.normal(size=shape))((K, n_outputs, N))
    return torch.from_numpy(np.asarray(values, float))


def make_batch(name, rng, weighted, dropped=False):
    weight = rng.uniform(0, 2, (K, 1, N)) if weighted else np.ones((K, 1, N))
    total = weight.sum(-1)
    masks = [torch.from_numpy((rng.uniform(size=(K, N, units)) >= RATE) / (1 - RATE)) for units in SIZES[1:-1]]
    return Batch(
        DenseRows(torch.from_numpy(rng.normal(size=(K, N, SIZES[0]))), FLOAT64),
        make_target(name, rng),
        torch.from_numpy(weight / total[..., None]),
        torch.from_numpy(rng.uniform(0, 1, (K, 1)) / total),
        torch.empty(K, N, dtype=torch.float64),
        [torch.empty(K, dtype=torch.float64) for _ in SIZES[1:]],
        masks if dropped else (),
    )


def of_member(batch, i):
    """The part of a batch that belongs to one member, for an engine of one network."""
    return Batch(
        DenseRows(batch.inputs.values[i : i + 1], FLOAT64),
        batch.target[i : i + 1],
        batch.scale[i : i + 1],
        batch.decay[i : i + 1],
        torch.empty(1, N, dtype=torch.float64),
        [torch.empty(1, dtype=torch.float64)],
        [mask[i : i + 1] for mask in batch.masks],
    )


def draw(rng):
    return packed_draw(SIZES, rng)


def packed_draw(sizes, rng):
    """Packed initial parameters of linear layers."""
    weights = draw_weights(sizes, "glorot_uniform", [6.0] * (len(sizes) - 1), rng, np.float64)
    return torch.from_numpy(pack(ClosedForm(sizes, (), ()).arrays(weights), np.float64))


def packed_parameters(module):
    """A module's trained parameters as its layout has them."""
    return torch.cat([parameter.detach().ravel() for parameter in trained_parameters(module).values()])


def module_of(packed, activations, rate):
    fitted = ClosedForm(SIZES, (), ()).attributes(packed.numpy().copy(), {})
    coefs, intercepts = fitted["coefs_"], fitted["intercepts_"]
    return build_module(
        [torch.from_numpy(c) for c in coefs],
        [torch.from_numpy(b) for b in intercepts],
        [ACTIVATIONS[activation].module for activation in activations],
        [rate] * (len(SIZES) - 2) if rate else (),
        None,
        IN_TRAINING,
    )


def packed_gradient(module):
    """A module's gradient in the closed form's order."""
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    gradient = Weights(
        [layer.weight.grad.T.numpy() for layer in linear], [layer.bias.grad.numpy() for layer in linear], {}
    )
    return pack(ClosedForm(SIZES, (), ()).arrays(gradient), np.float64)


@pytest.mark.parametrize("dropped", slow_but([True], [False, True]))
@pytest.mark.parametrize("weighted", slow_but([True], [False, True]))
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(
    "activation", slow_but(["tanh", "relu", "gelu", "tanh and gelu"], [*ACTIVATIONS, "tanh and gelu"])
)
def test_closed_form_is_autograd(activation, name, weighted, dropped, rng):
    """The closed form of a stack, our autograd engine on each member, and PyTorch on the loss as PyTorch has it."""
    activations = activation.split(" and ") if " and " in activation else [activation] * 2
    layout, batch = Layout.of_layers(SIZES, K), make_batch(name, rng, weighted, dropped)
    packed = [draw(rng) for _ in range(K)]
    parameters = layout.join(packed)
    gradient = torch.full_like(parameters, torch.nan)
    closed_form = [ACTIVATIONS[name] for name in activations]
    hidden = DroppedHidden if dropped else Hidden
    buffers = Buffers(layout, parameters, gradient)
    Backprop(buffers, N, closed_form, OBJECTIVES[name], FLOAT64, hidden).value_and_gradient(batch)
    for i in range(K):
        module = module_of(packed[i], activations, RATE if dropped else 0.0)
        for dropout, mask in zip([m for m in module if isinstance(m, MaskedDropout)], batch.masks, strict=True):
            dropout.mask = mask[i]
        losses = REFERENCE[name](module(batch.inputs.values[i]), batch.target[i].mT)
        squared_norm = sum(layer.weight.square().sum() for layer in module if isinstance(layer, nn.Linear))
        total = (losses * batch.scale[i, 0]).sum() + 0.5 * batch.decay[i] * squared_norm
        total.backward()
        np.testing.assert_allclose(layout.member(gradient, i), packed_gradient(module), rtol=1e-10, atol=1e-13)
        share = SIZES[-1] if name == "squared_error" else 1  # that loss reports the mean over outputs
        np.testing.assert_allclose(batch.losses[i], losses.detach() / share, rtol=1e-10, atol=1e-13)
        squared = sum(norms[i].square() for norms in batch.norms)
        np.testing.assert_allclose(squared, squared_norm.detach(), rtol=1e-12)

        own, flat = of_member(batch, i), packed_parameters(module)
        own_buffers = Buffers(ModuleNetwork(module, SIZES).layout(1), flat, torch.full_like(flat, torch.nan))
        engine = Autograd(module, own_buffers, (SIZES[-1], N), OBJECTIVES[name], torch.float64)
        engine.value_and_gradient(own)
        np.testing.assert_allclose(packed_gradient(module), layout.member(gradient, i), rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(own.losses[0], batch.losses[i], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(own.norms[0] ** 2, squared, rtol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_is_the_slope_of_the_loss(name, rng):
    objective, target = OBJECTIVES[name], make_target(name, rng)
    raw = torch.from_numpy(rng.normal(scale=2, size=(K, SIZES[-1], N)))
    share = SIZES[-1] if name == "squared_error" else 1

    def loss_and_gradient(raw):
        losses, gradient = torch.empty(K, N, dtype=torch.float64), torch.empty_like(raw)
        objective.loss_and_gradient(raw.clone(), target, losses, gradient)
        return losses, gradient

    step = 1e-5
    for output in range(SIZES[-1]):
        shift = torch.zeros_like(raw)
        shift[:, output] = step
        slope = (loss_and_gradient(raw + shift)[0] - loss_and_gradient(raw - shift)[0]) / (2 * step) * share
        np.testing.assert_allclose(loss_and_gradient(raw)[1][:, output], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_extreme_raw_predictions(name, dtype, rng):
    raw = torch.tensor([-80.0, -40.0, -1e-6, 0.0, 1e-6, 40.0, 80.0], dtype=dtype).expand(1, SIZES[-1], 7).contiguous()
    target = make_target(name, rng)[:1, :, :7]
    target = target.to(dtype) if target.is_floating_point() else target
    losses, gradient = torch.empty(1, 7, dtype=dtype), torch.empty_like(raw)
    OBJECTIVES[name].loss_and_gradient(raw.clone(), target, losses, gradient)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    # A density has no upper bound, and its logarithm's negative no lower one but that of the least variance.
    assert (losses >= (-100 if name == "gaussian_nll" else -1e-5)).all()


def test_gaussian_likelihood_is_finite_where_the_variance_is_not():
    raw = torch.tensor([-1000.0, 1000.0]).expand(1, 4, 2).contiguous()
    losses, gradient = torch.empty(1, 2), torch.empty_like(raw)
    OBJECTIVES["gaussian_nll"].loss_and_gradient(raw, torch.zeros(1, 2, 2), losses, gradient)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("objective", [BinaryCrossEntropy(), CrossEntropy(), MultilabelCrossEntropy()])
def test_probabilities_keep_the_order_of_logits(objective):
    logits = torch.linspace(-900, 900, 9001, dtype=torch.float64).view(1, 1, -1)
    multiclass, multilabel = isinstance(objective, CrossEntropy), isinstance(objective, MultilabelCrossEntropy)
    raw = torch.cat([logits, torch.zeros_like(logits)], 1) if multiclass else logits
    proba = objective.inverse_link(raw)[0, 0]
    near = logits[0, 0].abs() < 30
    expected = torch.sigmoid(logits[0, 0])
    np.testing.assert_allclose(proba[near], expected[near], rtol=3e-9 if multilabel else 1e-12)
    assert (proba > 0).all()
    # Next to 1 what belongs to a row may tie; what is ranked across rows alone, as labels are, may not.
    assert (proba.diff() >= 0).all()
    assert (proba[: len(proba) // 2].diff() > 0).all()
    assert not multilabel or ((proba.diff() > 0).all() and (proba < 1).all())
    assert objective.log_proba(raw).isfinite().all()


@pytest.mark.parametrize(
    ("name", "optimum"),
    [
        ("squared_error", lambda y: y.mean()),
        ("absolute_error", lambda y: y.median()),
        ("quantile", lambda y: y.quantile(QUANTILE)),
        ("poisson", lambda y: y.mean().log()),
        ("gamma", lambda y: y.mean().log()),
    ],
)
def test_a_constant_is_best_where_the_loss_says(name, optimum, rng):
    """No constant beats the mean, the median, the quantile or the log of the mean; 51 rows make them single values."""
    y = torch.from_numpy(rng.gamma(2.0, size=(1, 1, 51)))

    def mean_loss(constant):
        losses, raw = torch.empty(1, 51, dtype=torch.float64), torch.full_like(y, float(constant))
        OBJECTIVES[name].loss_and_gradient(raw, y, losses, torch.empty_like(raw))
        return losses.mean()

    best = optimum(y)
    assert all(mean_loss(best) < mean_loss(best + shift) for shift in (-0.3, -0.02, 0.02, 0.3))


def test_gaussian_likelihood_is_best_at_mean_and_deviation(rng):
    y = torch.from_numpy(rng.normal(2.0, 3.0, size=(1, 1, 50)))
    raw = torch.stack([y.mean(), y.var(correction=0).log()]).view(1, 2, 1).repeat(1, 1, 50)
    losses, gradient = torch.empty(1, 50, dtype=torch.float64), torch.empty_like(raw)
    np.testing.assert_allclose(standard_deviation(raw)[0, 0], y.std(correction=0).expand(50))
    OBJECTIVES["gaussian_nll"].loss_and_gradient(raw, y, losses, gradient)
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-10)


def test_a_module_is_packed_coefs_first():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    packed, network = packed_parameters(module), ModuleNetwork(module, (3, 1))
    assert packed.numel() == sum(parameter.numel() for parameter in module.parameters())
    torch.testing.assert_close(packed[:8], torch.cat([module[0].weight.ravel(), module[2].weight.ravel()]).detach())
    state = network.attributes(packed.numpy(), network.buffers())["module_state_"]
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(torch.from_numpy(state[name]), parameter.detach())
    weights = Weights([], [], {name: value.numpy() for name, value in module.state_dict().items()})
    np.testing.assert_array_equal(pack(network.arrays(weights), np.float32), packed)


def test_lower_precision_products_stay_close(rng):
    layout, batch = Layout.of_layers(SIZES, K), make_batch("multiclass", rng, True)
    parameters = layout.join([draw(rng) for _ in range(K)])
    gradients = {}
    for dtype in (torch.float64, torch.bfloat16):
        gradient = torch.zeros_like(parameters)
        products = products_for(dtype, CPU, 0)
        rows = DenseRows(batch.inputs.values.to(dtype), products)
        relu = [ACTIVATIONS["relu"]] * 2
        backprop = Backprop(Buffers(layout, parameters, gradient), N, relu, OBJECTIVES["multiclass"], products)
        backprop.value_and_gradient(batch._replace(inputs=rows))
        gradients[dtype] = gradient
    difference = (gradients[torch.float64] - gradients[torch.bfloat16]).norm() / gradients[torch.float64].norm()
    assert 0 < difference < 0.03


@pytest.mark.parametrize("sizes", [(5, 4), SIZES])
def test_sparse_rows_multiply_like_dense_ones(sizes, rng):
    import scipy.sparse as sp

    matrix = sp.random_array((N, sizes[0]), density=0.4, random_state=np.random.default_rng(0), format="csr")
    sparse = SparsePool(matrix, CPU, FLOAT64).slice(0, N)
    dense = DenseRows(torch.from_numpy(matrix.toarray())[None], FLOAT64)
    layout = Layout.of_layers(sizes, 1)
    flat, tanh = packed_draw(sizes, rng), (ACTIVATIONS["tanh"],) * (len(sizes) - 2)
    forward = ClosedForm(sizes, tanh, ()).forward(layout.parameters(flat), N, FLOAT64, PRECISIONS["float64"])
    np.testing.assert_allclose(forward(sparse).clone(), forward(dense), rtol=1e-12)
    delta = torch.from_numpy(rng.normal(size=(1, N, sizes[1])))
    from_sparse, from_dense = torch.empty(2, 1, *sizes[:2], dtype=torch.float64)
    sparse.coef_gradient(delta, from_sparse)
    dense.coef_gradient(delta, from_dense)
    np.testing.assert_allclose(from_sparse, from_dense, rtol=1e-12, atol=1e-14)
    outputs_first = torch.empty_like(from_dense.mT, memory_format=torch.contiguous_format)
    for rows in (sparse, dense):
        rows.coef_gradient_outputs_first(delta.mT, outputs_first)
        np.testing.assert_allclose(outputs_first, from_dense.mT, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("transposed", ["", "a", "b", "c"])
@pytest.mark.parametrize(("k", "n", "m", "p"), [(1, 200, 128, 96), (3, 7, 5, 6), (2, 1, 4, 1)])
def test_onednn_products_are_pytorchs(k, n, m, p, transposed, rng):
    """Every way a step calls them: operands as they are, or as views of a transpose; intercepts of rows or columns."""

    def draw(rows, columns, name):
        shape = (k, columns, rows) if transposed == name else (k, rows, columns)
        values = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        return values.mT if transposed == name else values

    a, b = draw(n, m, "a"), draw(m, p, "b")
    c = torch.from_numpy(rng.normal(size=(k, n, 1) if transposed == "c" else (k, 1, p)).astype(np.float32))
    product, total = torch.empty(k, n, p), torch.empty(k, n, p)
    with torch.inference_mode():
        onednn_bmm(a, b, out=product)
        onednn_baddbmm(c, a, b, out=total)
    np.testing.assert_allclose(product, torch.bmm(a, b), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(total, torch.baddbmm(c.expand(k, n, p), a, b), rtol=1e-4, atol=1e-4)
