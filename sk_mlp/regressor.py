"""`MLPTorchRegressor`."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from ._estimator import BaseMLPTorch, Call, has_partial_fit
from ._objective import REGRESSION_LINKS, REGRESSION_LOSSES, Objective
from ._targets import read_values


class MLPTorchRegressor(RegressorMixin, BaseMLPTorch):
    """Multi-layer perceptron regressor: scikit-learn's `MLPRegressor`, trained by PyTorch.

    Predicts one or many outputs. Parameters, attributes and defaults are those of `sklearn.neural_network.MLPRegressor
    <https://scikit-learn.org/stable/modules/generated/sklearn.neural_network.MLPRegressor.html>`_; `device` and
    `dtype` come on top.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        'squared_error' is half the squared error, with an identity output. 'poisson' is half the Poisson deviance,
        with an exponential output; it needs `y >= 0`.
    hidden_layer_sizes : int or array-like of int, default=(100,)
        Units of each hidden layer. An empty sequence gives linear regression.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'mish', \
            'softplus', 'sigmoid'}, default='relu'
        Activation of the hidden layers, as in `torch.nn` with its default arguments ('sigmoid' is 'logistic').
    solver : {'adam', 'sgd', 'lbfgs'}, default='adam'
        'adam' and 'sgd' train in mini-batches; 'lbfgs' runs SciPy's L-BFGS-B on all rows at once, in float64
        whatever `dtype` is, and suits small data.
    alpha : float, default=0.0001
        Strength of the L2 penalty, `alpha / 2 * sum(coef**2)`, divided like the loss by the batch's weight sum.
        Intercepts are free.
    batch_size : int or 'auto', default='auto'
        Rows of a mini-batch; 'auto' is `min(200, n_samples)`. Not used by 'lbfgs'.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Schedule for 'sgd'. 'invscaling' divides the initial rate by `(t_ + 1)**power_t` after each epoch;
        'adaptive' divides the rate by 5 at each plateau, until it is at most 1e-6.
    learning_rate_init : float, default=0.001
        Initial learning rate of 'adam' and 'sgd'.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs ('adam', 'sgd') or iterations ('lbfgs').
    shuffle : bool, default=True
        Whether to shuffle the rows before each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, of the early-stopping split and of the shuffling, in this order. The same
        seed gives the network that scikit-learn's MLP gives, up to rounding.
    tol : float, default=1e-4
        Least improvement, of the loss or of the validation score, that counts as one. For 'lbfgs' the gradient
        tolerance.
    verbose : bool or int, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from the last solution, with a new optimizer.
    momentum : float, default=0.9
        Momentum of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether 'sgd' uses Nesterov's momentum.
    early_stopping : bool, default=False
        Whether to hold out rows, score them after each epoch (by R2), stop when the score
        stops improving, and keep the best weights. Without it, training stops when the loss stops improving.
    validation_fraction : float, default=0.1
        Share of the rows to hold out for `early_stopping`.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of Adam's moment estimates, in [0, 1).
    epsilon : float, default=1e-8
        Adam's guard against division by zero.
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

    Attributes
    ----------
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
        Score of each epoch on the held-out rows; None without `early_stopping`.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Epochs or iterations run.
    t_ : int
        Training rows seen by the solver.
    n_layers_ : int
        Number of layers, input and output included.
    n_outputs_ : int
        Number of outputs of the network.
    out_activation_ : str
        'identity' or 'exp'.
    module_ : torch.nn.Sequential
        The network, live, on the CPU, giving raw predictions. Shares memory with `coefs_`.
    n_features_in_ : int
        Number of features seen in fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.

    See Also
    --------
    MLPTorchClassifier : The same for classification.

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
        "loss": [StrOptions(set(REGRESSION_LOSSES))],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: int | ArrayLike = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
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

    @available_if(has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch over X and y, going on from the last call.

        Optimizer state is kept between calls.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows of this call.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their target values.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        AttributeError
            If `solver` is 'lbfgs', which has no epochs.
        ValueError
            As `fit`; and with `early_stopping`.
        """
        return self._fit(X, y, sample_weight, Call(goes_on=hasattr(self, "coefs_"), one_epoch=True))

    def predict(self, X: Any) -> np.ndarray:
        """Predict target values.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to predict.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predicted values.
        """
        # As fitted, even if `loss` was changed since.
        y = self._predict_rows(X, lambda raw: REGRESSION_LINKS[self.out_activation_].inverse_link(raw)[0].T)
        return y.ravel() if self.n_outputs_ == 1 else y

    def _read_target(self, y: Any, call: Call) -> np.ndarray:
        target = read_values(y, self._precision.array, self.loss)
        if call.goes_on and self._objective().out_activation != self.out_activation_:
            raise ValueError(
                f"loss must keep the output activation that warm_start and partial_fit go on with, "
                f"{self.out_activation_!r}, got loss={self.loss!r}"
            )
        if call.goes_on and target.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} output(s), as in the first fit, got {target.shape[1]}")
        self.n_outputs_ = target.shape[1]
        return target

    def _objective(self) -> Objective:
        return REGRESSION_LOSSES[self.loss]
