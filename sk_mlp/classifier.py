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

    Minimizes the cross-entropy, computed from logits. Two classes use one sigmoid output, several classes a softmax,
    and an indicator matrix `y` (multilabel) one sigmoid per label. Parameters, attributes and defaults are those of
    `sklearn.neural_network.MLPClassifier
    <https://scikit-learn.org/stable/modules/generated/sklearn.neural_network.MLPClassifier.html>`_; the parameters
    from `device` on are additional.

    Scale X; otherwise the network may fail to train: ``make_pipeline(StandardScaler(), MLPTorchClassifier())``.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(100,)
        Number of units of each hidden layer. An empty sequence gives logistic regression.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'mish', \
            'softplus', 'sigmoid'}, sequence or callable, default='relu'
        Activation of the hidden layers, as in `torch.nn` with default arguments ('sigmoid' is the same as 'logistic').
        A sequence gives one activation for each hidden layer. In place of a name, an activation can be an `nn.Module`
        class, or a function without arguments that returns an `nn.Module`.
    solver : {'adam', 'adamw', 'sgd', 'lbfgs'} or torch.optim.Optimizer class, default='adam'
        'adam', 'adamw' and 'sgd' train in mini-batches. So does any optimizer class of `torch.optim`; it gets all
        parameters as one flat tensor. 'lbfgs' runs SciPy's L-BFGS-B on all rows at once, in float64 for every `dtype`,
        and suits small data sets.
    alpha : float, default=0.0001
        Strength of the L2 penalty, `alpha / 2 * sum(coef**2)`. Like the loss, the penalty is divided by the sum of the
        sample weights of the batch. Intercepts are not penalized.
    batch_size : int or 'auto', default='auto'
        Number of rows in a mini-batch; 'auto' is `min(200, n_samples)`. Not used by 'lbfgs'.
    learning_rate : {'constant', 'invscaling', 'adaptive', 'cosine', 'one_cycle', 'plateau'} or callable, \
            default='constant'
        Schedule of the learning rate. 'constant' keeps the initial rate. In the following, a plateau is more than
        `n_iter_no_change` consecutive epochs without improvement.

        Only for 'sgd': 'invscaling' divides the initial rate by `(t_ + 1)**power_t` after each epoch; 'adaptive'
        divides the rate by 5 at each plateau, until the rate is at most 1e-6.

        For every solver except 'lbfgs': 'cosine' lowers the rate to zero over `max_iter` epochs; 'one_cycle' raises the
        rate from a 25th of the initial rate to the initial rate over the first 30 % of `max_iter` epochs, and then
        lowers it to almost zero; 'plateau' divides the rate by 10 at each plateau, until the rate is at most 1e-6; a
        callable maps the epoch (counted from 0) to a factor that multiplies the initial rate.
    learning_rate_init : float, default=0.001
        Initial learning rate. Not used by 'lbfgs'.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Maximum number of epochs; for 'lbfgs', maximum number of iterations.
    shuffle : bool, default=True
        Whether to shuffle the rows before each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, of the early-stopping split and of the shuffling, drawn in this order. The same
        seed gives the same network as scikit-learn's MLP, up to rounding. None uses NumPy's global generator; the fits
        of a stacked search draw from it in another order than fits that run one after another.
    tol : float, default=1e-4
        Minimum improvement of the loss, or of the validation score, that counts as an improvement. For 'lbfgs',
        tolerance of the gradient.
    verbose : bool or int, default=False
        Whether to print the loss of each epoch. A number n prints one line every n epochs, and one for the last epoch:
        loss, validation score, learning rate and seconds.
    warm_start : bool, default=False
        Whether `fit` continues from the previous solution, with a new optimizer.
    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether to use Nesterov's momentum in 'sgd'.
    early_stopping : bool, default=False
        Whether to hold out some rows, compute a score on them after each epoch (see `scoring`), stop when the score
        stops improving, and keep the weights with the best score. If False, training stops when the training loss stops
        improving.
    validation_fraction : float, default=0.1
        Fraction of the rows to hold out for `early_stopping`.
    beta_1 : float, default=0.9
        Decay rate of the moving average of the gradients in 'adam' and 'adamw', in [0, 1).
    beta_2 : float, default=0.999
        Decay rate of the moving average of the squared gradients in 'adam' and 'adamw', in [0, 1).
    epsilon : float, default=1e-8
        Constant for numerical stability in 'adam' and 'adamw'.
    n_iter_no_change : int or inf, default=10
        Training stops after more than this number of consecutive epochs without improvement.
    max_fun : int, default=15000
        Maximum number of function evaluations of 'lbfgs'.
    device : str, default='auto'
        Device to compute on: 'auto' selects CUDA or MPS if available, else the CPU; or the name of any PyTorch device.
        Fitted attributes are NumPy arrays for every device.
    dtype : {'float32', 'float64', 'bfloat16'}, default='float32'
        The dtype of the arithmetic; predictions are float64. 'float64' agrees with scikit-learn up to rounding.
        'bfloat16' keeps the weights in float32 and computes matrix products in bfloat16, which is faster for wide
        layers on processors that have bfloat16 instructions, and slower on others.
    dropout : float or array-like of float, default=0.0
        Fraction of the outputs of each hidden layer that is set to zero in a training step, in [0, 1): one value for
        all layers, or one for each layer. The other outputs are divided by the fraction that is kept (inverted
        dropout). The mask of a row depends on `random_state`, the epoch and the values of the row, so that a weight of
        2 is still equivalent to repeating the row.
    normalization : {None, 'layer', 'batch'}, default=None
        Normalization of each hidden layer before its activation: 'layer' is `torch.nn.LayerNorm`; 'batch' is batch
        normalization, with running statistics for predictions. Not available with 'lbfgs'.
    init : {'glorot_uniform', 'he_normal', 'he_uniform', 'lecun_normal', 'torch'}, default='glorot_uniform'
        Method to initialize the weights: Glorot's, as in scikit-learn; He's, for 'relu'; LeCun's, for 'selu'; or that
        of `torch.nn.Linear`. He's and LeCun's methods set the intercepts to zero.
    module : callable, default=None
        `module(n_features, n_outputs)` returns a `torch.nn.Module` that maps rows to raw predictions. It replaces the
        network that the parameters above describe. The L2 penalty includes its parameters of two or more dimensions.
        To pickle the estimator, `module` must be a class or a function that Python can import.
    class_weight : dict, list of dict, 'balanced' or None, default=None
        Weights of the classes; they are multiplied with `sample_weight`. 'balanced' gives each class a weight inversely
        proportional to its frequency. In the multilabel case, a dict contains the weights of absence (0) and presence
        (1), for all labels alike; a list contains one dict for each label. The weight of a row is then the product over
        its labels.
    label_smoothing : float, default=0.0
        Fraction of the target of each row that is spread evenly over all classes, in [0, 1).
    loss : {'log_loss'} or callable, default='log_loss'
        'log_loss' is the cross-entropy. A user-defined `loss(raw_prediction, target)` takes two tensors, returns one
        loss for each row, `(n,)`, and is differentiated by autograd. `raw_prediction` has shape `(n, n_outputs)`;
        `target` contains class indices `(n,)`, or zeros and ones `(n, n_outputs)` for two classes and in the multilabel
        case.
    weight_decay : float, default=0.01
        Decoupled weight decay of 'adamw': each step multiplies the coefs by `1 - rate * weight_decay`, in addition to
        the penalty of `alpha`.
    solver_kwargs : dict, default=None
        Arguments of `solver` if it is a class of `torch.optim`. The learning rate is set by `learning_rate_init`.
    warmup_epochs : int, default=0
        Number of epochs at the start during which the learning rate rises in equal steps to the value that
        `learning_rate` gives.
    max_grad_norm : float, default=None
        Maximum Euclidean norm of the gradient in a step, penalty included. Longer gradients are scaled down to it.
    scoring : str, callable or None, default=None
        Metric monitored by early stopping; larger is better. None is the accuracy, as in scikit-learn's MLP, or minus
        the validation loss if `loss` is user-defined. 'loss' is always minus the validation loss, which distinguishes
        epochs better than the accuracy does. Otherwise, the name of a scorer or a callable `scorer(estimator, X, y)`.
        `validation_scores_` records the values.
    max_time : float, default=None
        Maximum training time in seconds. When an epoch ends after this time, training stops with a warning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels in ascending order; in the multilabel case, the indices of the labels.
    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer. Changing them changes the predictions.
    intercepts_ : list of ndarray of shape (fan_out,)
        Biases of each layer.
    loss_ : float
        Loss of the last epoch, penalty included.
    best_loss_ : float or None
        Smallest loss of all epochs; None with `early_stopping`.
    loss_curve_ : list of float
        Loss of each epoch (with 'lbfgs', of each iteration).
    validation_scores_ : list of float or None
        Score of each epoch on the validation rows; None without validation rows.
    validation_loss_curve_ : list of float or None
        Loss of each epoch on the validation rows, without the penalty; None without validation rows.
    history_ : dict of ndarray of shape (n_epochs,)
        'loss', 'validation_loss', 'validation_score', 'learning_rate', 'gradient_norm' (of the epoch's last step,
        before clipping) and 'seconds' of each epoch; NaN where there is no value. It can be passed to
        `pandas.DataFrame`.
    best_validation_score_ : float or None
        Largest value of `validation_scores_`; None without validation rows.
    n_iter_ : int
        Number of epochs (with 'lbfgs', of iterations) run.
    t_ : int
        Number of training rows seen by the solver.
    n_layers_ : int
        Number of layers, including the input and the output layer.
    n_outputs_ : int
        Number of outputs of the network.
    out_activation_ : str
        'logistic' or 'softmax'.
    module_ : torch.nn.Sequential
        The network as a PyTorch module on the CPU. It returns raw predictions and shares memory with `coefs_`.
    module_state_ : dict of ndarray
        Entries of the network's `state_dict` other than `coefs_` and `intercepts_`. Only for networks with
        normalization, with user-defined activations, or with `module` (which have no `coefs_`, `intercepts_` and
        `n_layers_`).
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen in fit, if all of them are strings.

    See Also
    --------
    MLPTorchRegressor : Multi-layer perceptron regressor.

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
            Training rows: numbers of any real dtype, a data frame, a memory map, or a sparse matrix, which stays
            sparse. X is cast once to `dtype`; a C-contiguous array of that dtype is used without a copy.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels (numbers or strings), or an indicator matrix (dense or sparse) for multilabel classification.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero. A weight of 2 is equivalent to repeating the row. With alpha=0 only the
            ratios of the weights matter; otherwise `alpha` is divided by their sum.
        X_val, y_val : like X and y, default=None
            Rows to validate on after each epoch. With `early_stopping` they replace the held-out rows. In a pipeline,
            `Pipeline(..., transform_input=["X_val"])` transforms `X_val` in the same way as X.
        sample_weight_val : array-like of shape (n_val,), default=None
            Weights of the validation rows.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or if the weights become non-finite. The estimator then remains as
            it was before the call.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If training ended before convergence: at `max_iter`, at `max_time`, or because the network diverged.
        sk_mlp.exceptions.UntrainedWarning
            If the loss of the network on the training rows is no better than that of a constant prediction, if its
            weights have hardly changed, or if early stopping monitored a score that was the same after each epoch. The
            warning names the likely cause. Fits of fewer than five epochs are not checked.
        UserWarning
            If a parameter was set that has no effect, such as `quantile` without `loss='quantile'`.
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
        """Train for one epoch on X and y, continuing from the previous call.

        The state of the optimizer is kept between calls. Callbacks are not called.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows of this call.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of these rows; they need not include all `classes`.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero.
        classes : array-like of shape (n_classes,), default=None
            All labels that can occur in any call. Required in the first call, unless y is an indicator matrix.
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
            For the same reasons as in `fit`; if `classes` is missing in the first call or differs in a later one; or
            with `early_stopping` but without `X_val`.
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
            Predicted labels; in the multilabel case an indicator matrix, sparse if y was sparse in `fit`.
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
            Probability of each class, in the order of `classes_`, or of each label. Probabilities are never exactly 0:
            those below exp(-350) are mapped to values above exp(-700), in the order of the logits. In the multilabel
            case, probabilities are also below 1, in the order of the logits, and within 2.1e-9 of the sigmoid.
        """
        fitted = as_it_is(self)
        return fitted._predict_rows(
            X, lambda raw: fitted._link(fitted._fitted_codec()).inverse_link(fitted._per_class(raw))
        )

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Predict log-probabilities. They are computed from logits, and finite if the weights are finite.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            Exact log-probabilities: equal to the logarithm of `predict_proba` where that is above exp(-350).
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
            One logit per row for two classes (positive for `classes_[1]`), otherwise one for each class or label.
        """
        fitted = as_it_is(self)
        logits = fitted._predict_rows(X, lambda raw: raw)
        return logits.ravel() if fitted.n_outputs_ == 1 else logits

    def _per_class(self, raw: Tensor) -> Tensor:
        """Return a raw prediction for each class or label, `(1, n_classes or n_labels, n)`."""
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
        # A user has set the attributes without a fit.
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
        """Return the cross-entropy of the task, also if `loss` is user-defined."""
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
