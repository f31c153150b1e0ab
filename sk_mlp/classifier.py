"""`MLPTorchClassifier`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from sk_mlp._estimator import fitting
from sk_mlp._estimator.attributes import as_it_is
from sk_mlp._estimator.base import BaseMLPTorch, has_partial_fit
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._estimator.sklearn_private import Interval, StrOptions, fit_context
from sk_mlp._estimator.targets import Codec, LabelCodec, class_weights, read_classes, read_labels, weigh_classes

from ._objective import (
    BinaryCrossEntropy,
    Classification,
    CrossEntropy,
    CustomLoss,
    MultilabelCrossEntropy,
    Objective,
    OneClass,
)


class MLPTorchClassifier(ClassifierMixin, BaseMLPTorch):
    """Multi-layer perceptron classifier: scikit-learn's `MLPClassifier`, trained by PyTorch.

    Minimises the cross-entropy of logits. Two classes get one sigmoid output, several classes a softmax, and an
    indicator matrix `y` (multilabel) one sigmoid per label. Parameters, attributes and defaults are those of
    `sklearn.neural_network.MLPClassifier
    <https://scikit-learn.org/stable/modules/generated/sklearn.neural_network.MLPClassifier.html>`_; those from
    `device` on come on top.

    Scale X, or the network may not train: ``make_pipeline(StandardScaler(), MLPTorchClassifier())``.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(100,)
        Units of each hidden layer. An empty sequence gives logistic regression.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'mish', \
            'softplus', 'sigmoid'}, sequence or callable, default='relu'
        Activation of the hidden layers, as in `torch.nn` with its default arguments ('sigmoid' is 'logistic'). Also a
        sequence of one for each hidden layer, and in place of a name an `nn.Module` class or a function without
        arguments that makes one.
    solver : {'adam', 'adamw', 'sgd', 'lbfgs'} or torch.optim.Optimizer class, default='adam'
        'adam', 'adamw' and 'sgd' train in mini-batches, and so does any class of `torch.optim`, which is handed all
        parameters as one flat tensor; 'lbfgs' runs SciPy's L-BFGS-B on all rows at once, in float64 whatever `dtype`
        is, and suits small data.
    alpha : float, default=0.0001
        Strength of the L2 penalty, `alpha / 2 * sum(coef**2)`, divided like the loss by the batch's weight sum.
        Intercepts are free.
    batch_size : int or 'auto', default='auto'
        Rows of a mini-batch; 'auto' is `min(200, n_samples)`. Not used by 'lbfgs'.
    learning_rate : {'constant', 'invscaling', 'adaptive', 'cosine', 'one_cycle', 'plateau'} or callable, \
            default='constant'
        Schedule. For 'sgd' alone: 'invscaling' divides the initial rate by `(t_ + 1)**power_t` after each epoch;
        'adaptive' divides the rate by 5 at each plateau, until it is at most 1e-6. For every solver but 'lbfgs':
        'cosine' falls to zero over `max_iter` epochs; 'one_cycle' rises from a 25th of the initial rate to all of it
        over 30 % of `max_iter` epochs and falls to nothing; 'plateau' divides the rate by 10 at each plateau, until it
        is at most 1e-6; a callable maps the epoch (from 0) to a factor of the initial rate.
    learning_rate_init : float, default=0.001
        Initial learning rate of all solvers but 'lbfgs'.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs, or iterations of 'lbfgs'.
    shuffle : bool, default=True
        Whether to shuffle the rows before each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, of the early-stopping split and of the shuffling, in this order. The same
        seed gives the network that scikit-learn's MLP gives, up to rounding. None draws from NumPy's global generator,
        which fits of a stacked search do in another order than fits one by one.
    tol : float, default=1e-4
        Least improvement, of the loss or of the validation score, that counts as one. For 'lbfgs' the gradient
        tolerance.
    verbose : bool or int, default=False
        Whether to print the loss of each epoch. A number n prints every n epochs, and the last: loss, validation
        score, learning rate and seconds.
    warm_start : bool, default=False
        Whether `fit` goes on from the last solution, with a new optimizer.
    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's momentum.
    early_stopping : bool, default=False
        Whether to hold out rows, score them after each epoch (by `scoring`), stop when the score
        stops improving, and keep the best weights. Without it, training stops when the loss stops improving.
    validation_fraction : float, default=0.1
        Share of the rows to hold out for `early_stopping`.
    beta_1 : float, default=0.9
        Decay rate of the mean of gradients that 'adam' and 'adamw' keep, in [0, 1).
    beta_2 : float, default=0.999
        Decay rate of the mean of squared gradients that 'adam' and 'adamw' keep, in [0, 1).
    epsilon : float, default=1e-8
        Guard of 'adam' and 'adamw' against division by zero.
    n_iter_no_change : int or inf, default=10
        Training stops after more than this many epochs in a row without improvement.
    max_fun : int, default=15000
        Most function evaluations of 'lbfgs'.
    device : str, default='auto'
        Where to compute: 'auto' takes CUDA or MPS where available, else the CPU; or any PyTorch device name. Fitted
        attributes are NumPy arrays whichever it was.
    dtype : {'float32', 'float64', 'bfloat16'}, default='float32'
        Number type of the arithmetic; predictions are float64. 'float64' agrees with scikit-learn to rounding;
        'bfloat16' keeps float32 weights and multiplies in bfloat16, which is faster for wide layers on processors with
        such instructions and slower on others.
    dropout : float or array-like of float, default=0.0
        Share of each hidden layer's outputs that is dropped in a training step, in [0, 1); one for all layers or one
        each. What is kept is divided by its share (inverted dropout). Masks follow from `random_state`, the epoch and
        the row, so that a weight of 2 is still the row twice.
    normalization : {None, 'layer', 'batch'}, default=None
        Normalization of each hidden layer before its activation: `torch.nn.LayerNorm`, or batch normalization with
        running statistics for predictions. Not with 'lbfgs'.
    init : {'glorot_uniform', 'he_normal', 'he_uniform', 'lecun_normal', 'torch'}, default='glorot_uniform'
        Initial weights: scikit-learn's (Glorot), He's (for 'relu'), LeCun's (for 'selu'), or those of
        `torch.nn.Linear`. He's and LeCun's start with intercepts of zero.
    module : callable, default=None
        `module(n_features, n_outputs)` returns a `torch.nn.Module` that maps rows to raw predictions, in place of the
        network that the parameters above describe. The L2 penalty counts its parameters of two or more dimensions.
        To be pickled, it has to be a function of a module or a class.
    class_weight : dict, list of dict, 'balanced' or None, default=None
        Weights of the classes, which multiply `sample_weight`. 'balanced' weighs a class by the inverse of its share.
        For labels a dict weighs absence (0) and presence (1) of each label, a list has a dict for each; over a row's
        labels the weights multiply.
    label_smoothing : float, default=0.0
        Share of each row's target that is spread over all classes, in [0, 1).
    loss : {'log_loss'} or callable, default='log_loss'
        The cross-entropy, or `loss(raw_prediction, target)` of tensors, which returns one loss a row, `(n,)`, and is
        differentiated by autograd. `raw_prediction` is `(n, n_outputs)`; `target` holds class indices `(n,)`, or zeros
        and ones `(n, n_outputs)` for two classes and for labels.
    weight_decay : float, default=0.01
        Decoupled decay of 'adamw': a step multiplies the coefs by `1 - rate * weight_decay`. `alpha` counts besides.
    solver_kwargs : dict, default=None
        Arguments of `solver` where it is a class of `torch.optim`; the learning rate is `learning_rate_init`.
    warmup_epochs : int, default=0
        Epochs in which the learning rate rises in equal steps to what `learning_rate` has for them.
    max_grad_norm : float, default=None
        Largest Euclidean norm of a step's gradient, penalty included; longer ones are scaled down.
    scoring : str, callable or None, default=None
        What early stopping goes by: None is accuracy as in scikit-learn's MLP, with a `loss` of yours minus the
        validation loss. 'loss' is minus the validation loss always, which tells epochs apart better than accuracy does.
        Else a scorer's name or a callable `scorer(estimator, X, y)`. Recorded in `validation_scores_`.
    max_time : float, default=None
        Seconds after which training ends, with the epoch that passes them and a warning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; the label indices in the multilabel case.
    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer. Assigning to them changes predictions.
    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer.
    loss_ : float
        Loss of the last epoch, penalty included.
    best_loss_ : float or None
        Smallest loss of an epoch; None with `early_stopping`.
    loss_curve_ : list of float
        Loss of each epoch (of each iteration with 'lbfgs').
    validation_scores_ : list of float or None
        Score of each epoch on the validation rows; None without any.
    validation_loss_curve_ : list of float or None
        Loss of each epoch on the validation rows, without the penalty; None without any.
    history_ : dict of ndarray of shape (n_epochs,)
        'loss', 'validation_loss', 'validation_score', 'learning_rate', 'gradient_norm' (of the epoch's last step,
        before clipping) and 'seconds' of each epoch; NaN where there is nothing to tell. `pandas.DataFrame` takes it.
    best_validation_score_ : float or None
        The largest of `validation_scores_`.
    n_iter_ : int
        Epochs or iterations run.
    t_ : int
        Training rows seen by the solver.
    n_layers_ : int
        Number of layers, input and output included.
    n_outputs_ : int
        Number of outputs of the network.
    out_activation_ : str
        'logistic' or 'softmax'.
    module_ : torch.nn.Sequential
        The network, live, on the CPU, giving raw predictions. Shares memory with `coefs_`.
    module_state_ : dict of ndarray
        What the network's `state_dict` holds besides `coefs_` and `intercepts_`; only of networks with normalization,
        with activations of yours, or with `module` (which have no `coefs_`, `intercepts_` and `n_layers_`).
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.

    See Also
    --------
    MLPTorchRegressor : The same for regression.

    References
    ----------
    .. [1] Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    .. [2] Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_mlp import MLPTorchClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPTorchClassifier((16,), learning_rate_init=0.01, max_iter=500, random_state=0).fit(X, y)
    >>> clf.predict(X[:3])
    array([0, 0, 0])
    >>> clf.module_
    Sequential(
      (0): Linear(in_features=4, out_features=16, bias=True)
      (1): ReLU()
      (2): Linear(in_features=16, out_features=3, bias=True)
    )
    """

    classes_: np.ndarray
    _needed = BaseMLPTorch._needed | {"classes_"}
    _labels: dict[str, Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLPTorch._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "loss": [StrOptions({"log_loss"}), callable],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | ArrayLike = (100,),
        activation: str | ArrayLike | Callable[[], nn.Module] = "relu",
        *,
        solver: str | type[torch.optim.Optimizer] = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | Callable[[int], float] = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str = "auto",
        dtype: str = "float32",
        dropout: float | ArrayLike = 0.0,
        normalization: str | None = None,
        init: str = "glorot_uniform",
        module: Callable[[int, int], nn.Module] | None = None,
        class_weight: dict[Any, float] | list[dict[int, float]] | str | None = None,
        label_smoothing: float = 0.0,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "log_loss",
        weight_decay: float = 0.01,
        solver_kwargs: dict[str, Any] | None = None,
        warmup_epochs: int = 0,
        max_grad_norm: float | None = None,
        scoring: str | Callable[..., float] | None = None,
        max_time: float | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.device = device
        self.dtype = dtype
        self.dropout = dropout
        self.normalization = normalization
        self.init = init
        self.module = module
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.loss = loss
        self.weight_decay = weight_decay
        self.solver_kwargs = solver_kwargs
        self.warmup_epochs = warmup_epochs
        self.max_grad_norm = max_grad_norm
        self.scoring = scoring
        self.max_time = max_time

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Numbers of any real dtype, a data frame, a memory map, or a sparse matrix, which stays sparse. Cast once to
            `dtype`; a C-contiguous array of that dtype is used in place.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels, numbers or strings; an indicator matrix, dense or sparse, for multilabel classification.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero. A weight of 2 counts as the row twice. With alpha=0 only
            their ratios matter; else `alpha` is divided by their sum.
        X_val, y_val : like X and y, default=None
            Rows to validate on after each epoch; with `early_stopping` they take the place of held-out rows. In a
            `Pipeline`, `Pipeline(..., transform_input=["X_val"])` transforms `X_val` as it does X.
        sample_weight_val : array-like of shape (n_val,), default=None
            Weights of the validation rows.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data break a rule, or the weights become non-finite. The estimator is then
            left as it was before the call.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If training was cut short: by `max_iter`, `max_time` or a network that diverged.
        sk_mlp.exceptions.UntrainedWarning
            If the network is no better than a constant prediction on the rows it was trained on, by its own loss; or
            if its weights have hardly moved, or early stopping went by a score that was the same after each epoch. It
            names the likely cause. Fits of fewer than five epochs are not judged.
        UserWarning
            If a parameter was set that nothing reads, such as `quantile` without `loss='quantile'`.
        """
        mode = FitMode(goes_on=self.warm_start and self.__sklearn_is_fitted__())
        return fitting.fit(self, Sample(X, y, sample_weight), Sample(X_val, y_val, sample_weight_val), mode)

    @available_if(has_partial_fit)
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train for one epoch over X and y, going on from the last call.

        Optimizer state is kept between calls. Callbacks are not told of them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of this call.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels; they need not cover all `classes`.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come. Required in the first call, unless y is an indicator matrix.
        X_val, y_val, sample_weight_val : default=None
            Rows to validate on, as in `fit`.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        AttributeError
            If `solver` is 'lbfgs', which has no epochs.
        ValueError
            As `fit`; if `classes` is missing in the first call or differs in a later one; with `early_stopping`.
        """
        listed = None if classes is None else read_classes(classes)
        mode = FitMode(goes_on=self.__sklearn_is_fitted__(), one_epoch=True, classes=listed)
        return fitting.fit(self, Sample(X, y, sample_weight), Sample(X_val, y_val, sample_weight_val), mode)

    def predict(self, X: Any) -> Any:
        """Predict labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels; an indicator matrix in the multilabel case, sparse if y was in `fit`.
        """
        fitted = as_it_is(self)
        choice = fitted._predict_rows(X, lambda raw: fitted._link(fitted._fitted_codec()).choose(raw))
        return fitted._fitted_codec().decode(choice)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Probability of each class, in the order of `classes_`, or of each label. Never exactly 0: below exp(-350)
            they are squeezed towards exp(-700), in the order of the logits. Probabilities of labels also stay
            below 1 in that order, within 2.1e-9 of the sigmoid.
        """
        fitted = as_it_is(self)
        return fitted._predict_rows(
            X, lambda raw: fitted._link(fitted._fitted_codec()).inverse_link(fitted._per_class(raw))
        )

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Predict log-probabilities, computed from logits: finite wherever the weights are.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Exact log-probabilities: the logarithm of `predict_proba` where that is above exp(-350).
        """
        fitted = as_it_is(self)
        return fitted._predict_rows(
            X, lambda raw: fitted._link(fitted._fitted_codec()).log_proba(fitted._per_class(raw))
        )

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits, the raw predictions of the network.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        logits : ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            One logit a row for two classes (positive for `classes_[1]`), else one for each class or label.
        """
        fitted = as_it_is(self)
        logits = fitted._predict_rows(X, lambda raw: raw)
        return logits.ravel() if fitted.n_outputs_ == 1 else logits

    def _per_class(self, raw: Tensor) -> Tensor:
        """Return raw predictions `(1, n_classes or n_labels, n)`: the one logit of two classes counts for both."""
        return torch.cat([-raw, raw], 1) if self.n_outputs_ == 1 else raw

    def _read_y(self, y: Any) -> Any:
        return read_labels(y)

    def _codec_for(self, y: Any, mode: FitMode) -> LabelCodec:
        if mode.goes_on:
            codec = self._fitted_codec()
            codec.require_same(y, mode.classes, all_present=not mode.one_epoch)
            return codec
        codec = LabelCodec.of(y, mode.classes)
        if mode.one_epoch and mode.classes is None and codec.kind != "multilabel":
            raise ValueError("classes must be passed on the first call to partial_fit, got None")
        return codec

    def _fitted_codec(self) -> LabelCodec:
        if "_labels" in vars(self):
            return LabelCodec(**self._labels)
        # Attributes that were set by hand.
        return LabelCodec.of_attributes(np.asarray(self.classes_), self.out_activation_, self.n_outputs_)

    def _weighing(
        self, codec: Codec, target: np.ndarray, weight: np.ndarray | None, mode: FitMode
    ) -> Callable[..., Any]:
        if self.class_weight is None:
            return super()._weighing(codec, target, weight, mode)
        each = self.class_weight if isinstance(self.class_weight, list) else [self.class_weight]
        if mode.one_epoch and "balanced" in each:
            raise ValueError(
                "class_weight must not be 'balanced' in partial_fit, which does not see all rows, got 'balanced'; "
                "sklearn.utils.class_weight.compute_class_weight gives the weights as a dict"
            )
        assert isinstance(codec, LabelCodec)
        weights = class_weights(self.class_weight, codec, target, weight)
        if not weigh_classes(weights, target, weight).values.any():
            raise ValueError(f"class_weight must leave some row a weight above 0, got {self.class_weight!r}")
        return partial(weigh_classes, weights)

    def _link(self, codec: LabelCodec) -> Classification:
        """Return the task's own objective, whatever `loss` is."""
        binary = OneClass if len(codec.classes) == 1 else BinaryCrossEntropy
        by_kind: dict[str, Callable[[float], Classification]] = {
            "binary": binary,
            "multiclass": CrossEntropy,
            "multilabel": MultilabelCrossEntropy,
        }
        return by_kind[codec.kind](self.label_smoothing)

    def _objective(self, codec: Codec) -> Objective:
        assert isinstance(codec, LabelCodec)
        if not callable(self.loss):
            return self._link(codec)
        if self.label_smoothing > 0:
            raise ValueError(f"label_smoothing must be 0 with a loss of your own, got {self.label_smoothing}")
        return CustomLoss(self.loss, self._link(codec))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
