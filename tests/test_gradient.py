"""The closed form against autograd and finite differences, for every activation and objective."""

import numpy as np
import pytest
import torch
from torch import nn

from sk_mlp._activations import ACTIVATIONS
from sk_mlp._backprop import Backprop, Forward
from sk_mlp._batches import Batch, DenseRows, SparsePool
from sk_mlp._network import Layout, build_module, glorot_uniform, pack, unpack
from sk_mlp._objective import REGRESSION_LOSSES, BinaryCrossEntropy, CrossEntropy, MultilabelCrossEntropy
from sk_mlp._products import onednn_baddbmm, onednn_bmm, products_for

CPU = torch.device("cpu")
FLOAT64 = products_for(torch.float64, CPU, 0)
SIZES, N, K = (5, 7, 6, 4), 11, 3
OBJECTIVES = {"binary": BinaryCrossEntropy(), "multiclass": CrossEntropy(), **REGRESSION_LOSSES}


def reference_loss(name, raw, target):
    """Losses of rows `(n,)` for raw predictions `(n, n_outputs)`, as torch.nn.functional has them."""
    if name == "multiclass":
        return nn.functional.cross_entropy(raw, target[:, 0], reduction="none")
    if name == "binary":
        return nn.functional.binary_cross_entropy_with_logits(raw, target, reduction="none").sum(1)
    if name == "squared_error":
        return 0.5 * (raw - target).square().sum(1)
    return (raw.exp() - target * raw + torch.xlogy(target, target) - target).sum(1)


def make_target(name, rng):
    """Targets `(k, n_outputs, n)`."""
    if name == "multiclass":
        return torch.from_numpy(rng.randint(SIZES[-1], size=(K, 1, N)))
    draw = {"binary": lambda shape: rng.randint(2, size=shape), "squared_error": lambda shape: rng.normal(size=shape)}
    values = draw.get(name, lambda shape: rng.poisson(1.5, size=shape))((K, SIZES[-1], N))
    return torch.from_numpy(np.asarray(values, float))


def make_batch(name, rng, weighted):
    weight = rng.uniform(0, 2, (K, 1, N)) if weighted else np.ones((K, 1, N))
    total = weight.sum(-1)
    return Batch(
        DenseRows(torch.from_numpy(rng.normal(size=(K, N, SIZES[0]))), FLOAT64),
        make_target(name, rng),
        torch.from_numpy(weight / total[..., None]),
        torch.from_numpy(rng.uniform(0, 1, (K, 1)) / total),
        torch.empty(K, N, dtype=torch.float64),
        [torch.empty(K, dtype=torch.float64) for _ in SIZES[1:]],
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_closed_form_is_autograd(activation, name, weighted, rng):
    layout, batch = Layout(SIZES, K), make_batch(name, rng, weighted)
    packed = [torch.from_numpy(glorot_uniform(SIZES, 6.0, rng)) for _ in range(K)]
    parameters = layout.join(packed)
    gradient = torch.full_like(parameters, torch.nan)
    backprop = Backprop(layout, parameters, gradient, N, ACTIVATIONS[activation], OBJECTIVES[name], FLOAT64)
    backprop.value_and_gradient(batch)
    for i in range(K):
        coefs, intercepts = unpack(packed[i].numpy(), SIZES)
        module = build_module(
            [torch.from_numpy(c) for c in coefs],
            [torch.from_numpy(b) for b in intercepts],
            ACTIVATIONS[activation].module,
        )
        losses = reference_loss(name, module(batch.inputs.values[i]), batch.target[i].mT)
        squared_norm = sum(layer.weight.square().sum() for layer in module if isinstance(layer, nn.Linear))
        total = (losses * batch.scale[i, 0]).sum() + 0.5 * batch.decay[i] * squared_norm
        total.backward()
        linear = [layer for layer in module if isinstance(layer, nn.Linear)]
        expected = pack([layer.weight.grad.T for layer in linear], [layer.bias.grad for layer in linear], np.float64)
        np.testing.assert_allclose(layout.member(gradient, i), expected, rtol=1e-10, atol=1e-13)
        share = SIZES[-1] if name == "squared_error" else 1  # that loss reports the mean over outputs
        np.testing.assert_allclose(batch.losses[i], losses.detach() / share, rtol=1e-10, atol=1e-13)
        squared = sum(norms[i].square() for norms in batch.norms)
        np.testing.assert_allclose(squared, squared_norm.detach(), rtol=1e-12)


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
    target = target if name == "multiclass" else target.to(dtype)
    losses, gradient = torch.empty(1, 7, dtype=dtype), torch.empty_like(raw)
    OBJECTIVES[name].loss_and_gradient(raw.clone(), target, losses, gradient)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    assert (losses >= -1e-5).all()


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


def test_poisson_optimum_is_the_log_of_the_mean(rng):
    y = torch.from_numpy(rng.poisson(3.0, (1, 1, 50)).astype(float))
    raw = y.mean().log().expand(1, 1, 50).contiguous()
    losses, gradient = torch.empty(1, 50, dtype=torch.float64), torch.empty_like(raw)
    REGRESSION_LOSSES["poisson"].loss_and_gradient(raw, y, losses, gradient)
    assert gradient.sum().abs() < 1e-10


def test_lower_precision_products_stay_close(rng):
    layout, batch = Layout(SIZES, K), make_batch("multiclass", rng, True)
    parameters = layout.join([torch.from_numpy(glorot_uniform(SIZES, 6.0, rng)) for _ in range(K)])
    gradients = {}
    for dtype in (torch.float64, torch.bfloat16):
        gradient = torch.zeros_like(parameters)
        products = products_for(dtype, CPU, 0)
        rows = DenseRows(batch.inputs.values.to(dtype), products)
        backprop = Backprop(layout, parameters, gradient, N, ACTIVATIONS["relu"], OBJECTIVES["multiclass"], products)
        backprop.value_and_gradient(batch._replace(inputs=rows))
        gradients[dtype] = gradient
    difference = (gradients[torch.float64] - gradients[torch.bfloat16]).norm() / gradients[torch.float64].norm()
    assert 0 < difference < 0.03


@pytest.mark.parametrize("sizes", [(5, 4), SIZES])
def test_sparse_rows_multiply_like_dense_ones(sizes, rng):
    import scipy.sparse as sp

    matrix = sp.random_array((N, sizes[0]), density=0.4, rng=np.random.default_rng(0), format="csr")
    sparse = SparsePool(matrix, CPU, FLOAT64).slice(0, N)
    dense = DenseRows(torch.from_numpy(matrix.toarray())[None], FLOAT64)
    layout = Layout(sizes, 1)
    flat = torch.from_numpy(glorot_uniform(sizes, 6.0, rng))
    forward = Forward(layout.coefs(flat), layout.intercepts(flat), N, ACTIVATIONS["tanh"], FLOAT64, torch.float64)
    np.testing.assert_allclose(forward(sparse).clone(), forward(dense), rtol=1e-12)
    delta = torch.from_numpy(rng.normal(size=(1, N, sizes[1])))
    from_sparse, from_dense = (
        torch.empty(1, *sizes[:2], dtype=torch.float64),
        torch.empty(1, *sizes[:2], dtype=torch.float64),
    )
    sparse.coef_gradient(delta, from_sparse)
    dense.coef_gradient(delta, from_dense)
    np.testing.assert_allclose(from_sparse, from_dense, rtol=1e-12, atol=1e-14)


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
