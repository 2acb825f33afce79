import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medbolt.core.errors import UserError
from medbolt.core.objective.stack import ObjectiveStack
from medbolt.core.objective.step import Capture

LOGITS, TARGET = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])


class Scaled:
    def __init__(self, factor, log=None):
        self.factor, self.log, self.capture = factor, log if log is not None else [], Capture("model")

    def objective(self, step):
        self.log.append(self.factor)
        return self.factor * step.loss()


@pytest.fixture
def stacked(classifier):
    def make(path="criterion", *objectives, criterion=None):
        module = classifier(criterion)
        stack = ObjectiveStack(module, path)
        stack.objectives += objectives
        return module, stack

    return make


def test_intercepts_only_while_a_batch_runs(stacked):
    module, stack = stacked("criterion", Scaled(3))
    own = F.cross_entropy(LOGITS, TARGET)
    assert torch.equal(module.criterion(LOGITS, TARGET), own)
    stack.start(None, None)
    torch.testing.assert_close(module.criterion(LOGITS, TARGET), 3 * own)
    stack.stop()
    assert torch.equal(module.criterion(LOGITS, TARGET), own)


def test_the_last_objective_is_outermost(stacked):
    log = []
    module, stack = stacked("criterion", Scaled(2, log), Scaled(5, log))
    stack.start(None, None)
    torch.testing.assert_close(module.criterion(LOGITS, TARGET), 10 * F.cross_entropy(LOGITS, TARGET))
    assert log == [5, 2]


def test_weights_keep_their_names_and_the_forward_is_restored(stacked):
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    module, stack = stacked("criterion", Scaled(2), criterion=weighted)
    assert "criterion.weight" in module.state_dict()
    stack.remove()
    assert "forward" not in vars(weighted)


def test_a_plain_function_and_a_method_are_shadowed_and_restored(stacked):
    def criterion(logits, target):
        return F.cross_entropy(logits, target)

    module, stack = stacked("criterion", Scaled(2), criterion=criterion)
    stack.start(None, None)
    torch.testing.assert_close(module.criterion(LOGITS, TARGET), 2 * F.cross_entropy(LOGITS, TARGET))
    stack.remove()
    assert module.criterion is criterion

    type(module).compute = lambda self, logits, target: F.cross_entropy(logits, target)
    stack = ObjectiveStack(module, "compute")
    stack.objectives.append(Scaled(4))
    stack.start(None, None)
    torch.testing.assert_close(module.compute(LOGITS, TARGET), 4 * F.cross_entropy(LOGITS, TARGET))
    stack.remove()
    assert "compute" not in vars(module)


def test_functional_losses_are_reached_with_keywords_and_options(stacked):
    _, stack = stacked("functional", Scaled(2))
    weight = torch.tensor([1.0, 3.0])
    expected = 2 * F.cross_entropy(LOGITS, TARGET, weight, reduction="sum")
    stack.start(None, None)
    torch.testing.assert_close(F.cross_entropy(LOGITS, target=TARGET, weight=weight, reduction="sum"), expected)
    stack.stop()
    torch.testing.assert_close(2 * F.cross_entropy(LOGITS, TARGET, weight, reduction="sum"), expected)


def test_reduction_none_stays_per_sample(stacked):
    module, stack = stacked("criterion", Scaled(2), criterion=nn.CrossEntropyLoss(reduction="none"))
    stack.start(None, None)
    assert module.criterion(LOGITS, TARGET).shape == (2,)


def test_a_nested_criterion_is_found_by_its_path(stacked):
    module, _ = stacked()
    module.parts = nn.ModuleDict({"loss": nn.CrossEntropyLoss()})
    stack = ObjectiveStack(module, "parts.loss")
    stack.objectives.append(Scaled(2))
    stack.start(None, None)
    torch.testing.assert_close(module.parts["loss"](LOGITS, TARGET), 2 * F.cross_entropy(LOGITS, TARGET))


def test_a_missing_criterion_is_answered_with_candidates(classifier):
    module = classifier()
    module.my_loss = nn.NLLLoss()
    with pytest.raises(UserError) as error:
        ObjectiveStack(module, "loss_fn")
    message = str(error.value)
    assert "Classifier has no criterion 'loss_fn'; it has 'criterion', 'my_loss'" in message
    assert "criterion='functional'" in message


def test_something_that_is_no_criterion_is_refused(classifier):
    module = classifier()
    module.criterion_name = "ce"
    with pytest.raises(UserError, match="'criterion_name' of Classifier is no criterion: it is not callable"):
        ObjectiveStack(module, "criterion_name")


def test_an_objective_that_reduces_is_refused(stacked):
    class Reduced(Scaled):
        def objective(self, step):
            return step.loss().mean()

    module, stack = stacked("criterion", Reduced(1))
    stack.start(None, None)
    with pytest.raises(UserError, match=r"Reduced.objective returned shape \(\) for a batch of 2"):
        module.criterion(LOGITS, TARGET)


def test_outputs_that_are_no_tensors_are_refused(stacked):
    module, stack = stacked("criterion", Scaled(1), criterion=lambda out, y: F.cross_entropy(out["logits"], y))
    stack.start(None, None)
    with pytest.raises(UserError, match="was called with dict and Tensor"):
        module.criterion({"logits": LOGITS}, TARGET)


def test_an_objective_may_use_the_criterion_itself(stacked):
    class Twice(Scaled):
        def objective(self, step):
            return step.loss() + 0 * module.criterion(step.logits, step.target)

    module, stack = stacked("criterion", Twice(1))
    stack.start(None, None)
    torch.testing.assert_close(module.criterion(LOGITS, TARGET), F.cross_entropy(LOGITS, TARGET))


def test_a_call_without_a_target_is_refused(stacked):
    module, stack = stacked("criterion", Scaled(1), criterion=lambda prediction, target=None: prediction.mean())
    stack.start(None, None)
    with pytest.raises(UserError, match="criterion 'criterion' was called without a target; objectives need"):
        module.criterion(LOGITS)
    stack.stop()
    assert module.criterion(LOGITS) == LOGITS.mean()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("criterion", "training_step of Classifier never called its criterion 'criterion', so objectives had no part"),
        ("functional", "never called torch's 'cross_entropy', 'nll_loss', 'binary_cross_entropy_with_logits', "),
    ],
)
def test_a_criterion_that_is_never_called_is_found(stacked, path, sentence):
    module, stack = stacked(path, Scaled(1))
    stack.require_use()  # no batch has run yet
    stack.start(None, None)
    stack.stop()
    with pytest.raises(UserError, match=sentence):
        stack.require_use()
    stack.start(None, None)
    (F.cross_entropy if path == "functional" else module.criterion)(LOGITS, TARGET)
    stack.stop()
    stack.start(None, None)  # one batch of several is enough
    stack.require_use()
    stack.stop()


@pytest.mark.parametrize("call", [nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0])), F.cross_entropy])
def test_a_compiled_criterion_is_the_criterion_it_compiles(stacked, call):
    if call is F.cross_entropy and torch.__version__ < "2.7":
        pytest.skip("torch 2.6 cannot compile F.cross_entropy itself")
    target = torch.tensor([0, -100]) if call is F.cross_entropy else torch.tensor([0, 1])
    module, stack = stacked("criterion", Scaled(2), criterion=torch.compile(call, backend="eager"))
    stack.start(None, None)
    torch.testing.assert_close(module.criterion(LOGITS, target), 2 * call(LOGITS, target))
    stack.remove()
    torch.testing.assert_close(module.criterion(LOGITS, target), call(LOGITS, target))


def test_a_value_a_sample_reaches_the_step_although_an_objective_ignores_the_criterion(stacked):
    class Own(Scaled):
        def objective(self, step):
            return step.logits.sum(1)

    module, stack = stacked("criterion", Own(1), criterion=lambda z, t: F.cross_entropy(z, t, reduction="none"))
    stack.start(None, None)
    assert torch.equal(module.criterion(LOGITS, TARGET), LOGITS.sum(1))


def test_a_criterion_that_is_a_read_only_property_is_refused(classifier):
    module = classifier()
    type(module).computed = property(lambda self: F.cross_entropy)
    try:
        with pytest.raises(UserError, match="criterion 'computed' of Classifier is a property that cannot be set, so"):
            ObjectiveStack(module, "computed")
    finally:
        del type(module).computed


def test_a_scripted_criterion_is_evaluated_as_it_is(stacked):
    scripted = torch.jit.script(nn.CrossEntropyLoss())
    module, stack = stacked("criterion", Scaled(2), criterion=scripted)
    stack.start(None, None)
    torch.testing.assert_close(module.criterion(LOGITS, TARGET), 2 * F.cross_entropy(LOGITS, TARGET))
