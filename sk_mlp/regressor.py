"""`MLPTorchRegressor`."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from sk_mlp._estimator import fitting
from sk_mlp._estimator.attributes import as_it_is
from sk_mlp._estimator.base import BaseMLPTorch, has_partial_fit
from sk_mlp._estimator.fitted import fitted_sizes
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._estimator.sklearn_private import Interval, StrOptions, fit_context
from sk_mlp._estimator.targets import Codec, ValueCodec, read_values

from ._objective import INVERSE_LINKS, REGRESSION_LOSSES, Objective, regression_objective, standard_deviation


class MLPTorchRegressor(RegressorMixin, BaseMLPTorch):
    """Multi-layer perceptron regressor: scikit-learn's `MLPRegressor`, trained by PyTorch.

    Predicts one or several outputs. Parameters, attributes and defaults are those of
    `sklearn.neural_network.MLPRegressor
    <https://scikit-learn.org/stable/modules/generated/sklearn.neural_network.MLPRegressor.html>`_; the parameters
    from `device` on are additional.

    Scale X and y; otherwise the network may fail to train: ``TransformedTargetRegressor(make_pipeline(StandardScaler(),
    MLPTorchRegressor()), transformer=StandardScaler())``.

    Parameters
    ----------
    loss : {'squared_error', 'absolute_error', 'quantile', 'huber', 'poisson', 'gamma', 'gaussian_nll'} or callable, \
            default='squared_error'
        'squared_error' is half the squared error. 'absolute_error' predicts the median, 'quantile' the `quantile`.
        'huber' is quadratic for residuals up to `huber_delta` and linear for larger ones. 'poisson' and 'gamma' are
        half the deviances, with an exponential output; they require `y >= 0` and `y > 0`. 'gaussian_nll' learns a mean
        and a standard deviation for each row; see `predict`. A user-defined `loss(raw_prediction, target)` takes two
        tensors `(n, n_outputs)`, returns one loss for each row, `(n,)`, and is differentiated by autograd.
    hidden_layer_sizes : int or array-like of int, default=(100,)
        Number of units of each hidden layer. An empty sequence gives linear regression.
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
    quantile : float, default=0.5
        Quantile that `loss='quantile'` predicts, in (0, 1).
    huber_delta : float, default=1.0
        Residual above which `loss='huber'` is linear, in units of y.
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
        Metric monitored by early stopping; larger is better. None is R2 for the losses that scikit-learn's MLP has
        ('squared_error', 'poisson'), and minus the validation loss for all others. 'loss' is always minus the
        validation loss. Otherwise, the name of a scorer or a callable `scorer(estimator, X, y)`. `validation_scores_`
        records the values.
    max_time : float, default=None
        Maximum training time in seconds. When an epoch ends after this time, training stops with a warning.

    Attributes
    ----------
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
        Number of outputs, equal to the number of columns of y.
    out_activation_ : str
        'identity' or 'exp'.
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
    MLPTorchClassifier : Multi-layer perceptron classifier.

    References
    ----------
    .. [1] Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    .. [2] Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_mlp import MLPTorchRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> reg = MLPTorchRegressor(hidden_layer_sizes=(32,), activation="tanh", solver="lbfgs", random_state=0)
    >>> round(reg.fit(X, np.sin(3 * X[:, 0])).score(X, np.sin(3 * X[:, 0])), 2)
    1.0
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLPTorch._parameter_constraints,
        "loss": [StrOptions(REGRESSION_LOSSES), callable],
        "quantile": [Interval(Real, 0, 1, closed="neither")],
        "huber_delta": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "squared_error",
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
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        weight_decay: float = 0.01,
        solver_kwargs: dict[str, Any] | None = None,
        warmup_epochs: int = 0,
        max_grad_norm: float | None = None,
        scoring: str | Callable[..., float] | None = None,
        max_time: float | None = None,
    ) -> None:
        self.loss = loss
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
        self.quantile = quantile
        self.huber_delta = huber_delta
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
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target values. They should be near 1; see the note on scaling in the docstring of the class.
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
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target values of these rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero.
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
            For the same reasons as in `fit`; or with `early_stopping` but without `X_val`.
        """
        mode = FitMode(goes_on=self.__sklearn_is_fitted__(), one_epoch=True)
        return fitting.fit(self, Sample(X, y, sample_weight), Sample(X_val, y_val, sample_weight_val), mode)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict target values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.
        return_std : bool, default=False
            Whether to return also the standard deviation of y around each prediction; only for `loss='gaussian_nll'`.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predicted values.
        y_std : ndarray like y
            Standard deviations; only returned if `return_std` is True.

        Raises
        ------
        ValueError
            If `return_std` is True and the network was fitted with another loss.
        """
        # The fitted network decides, even if `loss` was changed since the fit.
        fitted = as_it_is(self)
        fitted._require_fitted()
        n_outputs = fitted.n_outputs_
        if return_std and fitted_sizes(fitted)[-1] != 2 * n_outputs:
            raise ValueError(f"return_std=True must come with loss='gaussian_nll', got a fit with loss={self.loss!r}")
        link = fitted._link_of_output()
        if return_std:
            both = fitted._predict_rows(
                X, lambda raw: torch.cat([link(raw[:, :n_outputs]), standard_deviation(raw)], 1)
            )
            y, std = (part.ravel() if n_outputs == 1 else part.copy() for part in np.hsplit(both, 2))
            return y, std
        y = fitted._predict_rows(X, lambda raw: link(raw[:, :n_outputs]))
        return y.ravel() if n_outputs == 1 else y

    def _link_of_output(self) -> Callable[[Tensor], Tensor]:
        """Return the inverse link of the fitted network, which does not depend on the current value of `loss`."""
        link = INVERSE_LINKS.get(self.out_activation_)
        if link is None:
            raise ValueError(f"out_activation_ must be among {sorted(INVERSE_LINKS)}, got {self.out_activation_!r}")
        return link

    def _read_y(self, y: Any) -> np.ndarray:
        return read_values(y, self._precision.array, self.loss)

    def _codec_for(self, y: np.ndarray, mode: FitMode) -> ValueCodec:
        if not mode.goes_on:
            return ValueCodec(y.shape[1])
        codec = self._fitted_codec()
        if self._objective(codec).out_activation != self.out_activation_:
            raise ValueError(
                f"loss must keep the output activation that warm_start and partial_fit go on with, "
                f"{self.out_activation_!r}, got loss={self.loss!r}"
            )
        return codec

    def _fitted_codec(self) -> ValueCodec:
        return ValueCodec(self.n_outputs_)

    def _objective(self, _: Codec) -> Objective:
        return regression_objective(self.loss, self.quantile, self.huber_delta)
