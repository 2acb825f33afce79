import pytest
import torch
from processes import run
from torch import nn
from toys import ToyImages, trainer

from medbolt.core import ClassificationTask, UserError
from medbolt.longtail import LongTailed, PosthocLogitAdjustment, adjust_logits

COUNTS = [40, 20, 10, 5]


def test_equals_the_formula_entry_by_entry():
    logits, counts, prior = torch.randn(6, 3).double(), [70, 20, 10], [0.2, 0.5, 0.3]
    log = torch.tensor
    expected = [
        [float(z[c] - 0.7 * log(counts[c] / 100).log() + log(prior[c]).log()) for c in range(3)] for z in logits
    ]
    found = adjust_logits(logits, counts, 0.7, [2 * p for p in prior])
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-6, rtol=0)
    assert torch.equal(adjust_logits(logits, counts, 0.0), logits)


def test_posteriors_move_to_the_test_frequencies(gaussians):
    logits, _ = gaussians(50)
    likelihood = logits - torch.tensor([0.95, 0.05]).double().log()
    expected = (likelihood + torch.tensor([0.4, 0.6]).double().log()).softmax(1)
    torch.testing.assert_close(adjust_logits(logits, [95, 5], 1.0, [0.4, 0.6]).softmax(1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_an_empty_class_is_never_predicted(tau):
    logits = torch.tensor([[0.0, 9.0, 1.0]], requires_grad=True)
    adjusted = adjust_logits(logits, [5, 0, 5], tau)
    assert adjusted.argmax(1).item() == 2
    adjusted.softmax(1)[0, 2].backward()
    assert adjusted.isfinite().all()
    assert logits.grad.isfinite().all()
    assert adjust_logits(logits, [5, 5, 5], 1.0, [1, 1, 0]).argmax(1).item() == 1


def test_half_precision_is_raised():
    assert adjust_logits(torch.zeros(2, 2, dtype=torch.float16), [10**6, 1]).dtype == torch.float32


def test_the_recall_of_the_tail_rises_with_tau(gaussians):
    logits, target = gaussians(4000)
    predictions = [adjust_logits(logits, [95, 5], tau).argmax(1) for tau in (0, 0.5, 1, 2)]
    tail = [float((p[target == 1] == 1).float().mean()) for p in predictions]
    head = [float((p[target == 0] == 0).float().mean()) for p in predictions]
    assert tail == sorted(tail)
    assert head == sorted(head, reverse=True)
    assert tail[2] > tail[0] + 0.3


def test_tuning_finds_that_exact_posteriors_need_one(gaussians):
    adjustment = PosthocLogitAdjustment(tau=None, class_counts=[95, 5])
    logged = adjustment.tune(*gaussians(100_000))
    assert adjustment.tau == pytest.approx(1.0, abs=0.15)
    test_logits, test_target = gaussians(20_000, share=0.5, seed=1)
    accuracy = (adjustment.adjusted(test_logits).argmax(1) == test_target).float().mean()
    plain = (test_logits.argmax(1) == test_target).float().mean()
    assert accuracy == pytest.approx(0.8413, abs=0.01)  # the best there is
    assert plain < 0.7
    assert logged == {"tau": adjustment.tau, "balanced_accuracy": pytest.approx(0.8413, abs=0.01)}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.8])
def test_tuning_for_a_test_prior_finds_that_exact_posteriors_need_one(gaussians, share):
    adjustment = PosthocLogitAdjustment(tau=None, test_prior=[1 - share, share], class_counts=[95, 5])
    logged = adjustment.tune(*gaussians(100_000))
    test_logits, test_target = gaussians(100_000, share=share, seed=1)
    accuracy = (adjustment.adjusted(test_logits).argmax(1) == test_target).double().mean()
    shift = torch.tensor([(1 - share) / 0.95, share / 0.05]).log()  # by Bayes' rule, the best there is
    best = float(((test_logits + shift).argmax(1) == test_target).double().mean())
    assert float(accuracy) == pytest.approx(best, abs=0.003)
    assert logged["shifted_prior_accuracy"] == pytest.approx(best, abs=0.01)


def test_of_equal_values_it_takes_the_smallest():
    adjustment = PosthocLogitAdjustment(None, class_counts=[3, 1], grid=[2.0, 0.5, 1.0])
    adjustment.tune(torch.tensor([[9.0, 0.0], [0.0, 9.0]]).double(), torch.tensor([0, 1]))
    assert adjustment.tau == 0.5


def test_it_takes_the_counts_of_the_data_and_logs_what_it_does(bright, noting, make_trainer):
    task, adjustment = noting(), PosthocLogitAdjustment(2.0)
    trainer = make_trainer(callbacks=[adjustment])
    trainer.fit(task, bright())
    assert {"val/posthoc_tau", "val/posthoc_balanced_accuracy"} <= set(trainer.callback_metrics)
    trainer.test(task, bright(), verbose=False)
    expected = adjust_logits(torch.cat(task.raw["test"]), COUNTS, 2.0)
    torch.testing.assert_close(torch.cat(task.seen["test"]), expected)


def test_a_checkpoint_keeps_counts_and_tau(bright, make_task, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[tuned := PosthocLogitAdjustment(None)], max_epochs=2)
    trainer.fit(make_task(), bright())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    tuned_tau, tuned.tau = tuned.tau, -1.0
    other = PosthocLogitAdjustment(None)
    run = make_trainer(callbacks=[other])
    run.test(make_task(), bright().test_dataloader(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert other.tau == tuned_tau
    assert other.class_counts == COUNTS
    fixed = PosthocLogitAdjustment(0.3, class_counts=[1, 1, 1, 1])
    make_trainer(callbacks=[fixed]).test(make_task(), bright(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert (fixed.tau, fixed.class_counts) == (0.3, [1, 1, 1, 1])


def test_raises_the_recall_of_the_tail_of_a_trained_task(bright, make_task, make_trainer):
    def tail(callbacks):
        task = make_task()
        trainer = make_trainer(callbacks=callbacks, max_epochs=6)
        trainer.fit(task, bright())
        (metrics,) = trainer.test(task, bright(), verbose=False)
        return metrics["test/recall/d"], metrics["test/balanced_accuracy"]

    assert tail([PosthocLogitAdjustment(3.0)])[0] >= tail([])[0]
    assert tail([PosthocLogitAdjustment(None)])[1] >= tail([])[1]


def test_unknown_counts_are_named(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="does not know how many training samples"):
        make_trainer(callbacks=[PosthocLogitAdjustment()]).test(make_task(), bright().test_dataloader())


def test_counts_of_other_classes_are_named(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="has 2 class_counts .* gives 4 logits"):
        make_trainer(callbacks=[PosthocLogitAdjustment(class_counts=[1, 2])]).test(make_task(), bright())


def test_counts_of_an_evaluation_s_data_do_not_outlive_it_but_those_of_training_do(bright, make_task, make_trainer):
    adjustment, task = PosthocLogitAdjustment(), make_task()
    trainer = make_trainer(callbacks=[adjustment])
    trainer.test(task, bright(), verbose=False)
    assert adjustment.class_counts == COUNTS
    other = LongTailed(bright(), ratio=20)
    trainer.test(task, other, verbose=False)
    assert adjustment.class_counts == list(other.class_counts) != COUNTS
    with pytest.raises(UserError, match="does not know how many training samples"):
        make_trainer(callbacks=[adjustment]).test(task, bright().test_dataloader(), verbose=False)
    trainer.fit(task, bright())
    trainer.test(task, other, verbose=False)
    assert adjustment.class_counts == COUNTS


@pytest.mark.parametrize(
    ("counts", "prior", "message"),
    [([5], None, "1 class_counts"), ([5, 3], None, "2 class_counts"), ([5, 3, 1], [1, 1], "2 test_prior")],
)
def test_entries_that_are_not_one_a_class_are_named(counts, prior, message):
    with pytest.raises(UserError, match=f"adjust_logits has {message}, but 3 logits a sample"):
        adjust_logits(torch.zeros(2, 3), counts, test_prior=prior)


def test_nothing_to_tune_on_is_said(bright, make_task, make_trainer):
    with pytest.raises(UserError, match="validation samples, but the data have no val_dataloader"):
        make_trainer(callbacks=[PosthocLogitAdjustment(None, class_counts=COUNTS)]).test(
            make_task(), bright().test_dataloader()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"grid": []}, "grid"), ({"test_prior": [0, 0]}, "prior"), ({"test_prior": [-1, 2]}, "prior")],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PosthocLogitAdjustment(**options)


class Network(nn.Module):
    """Not a container of torch's own, whose hooks the compiler looks at each time."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, 3)

    def forward(self, image):
        return self.head(self.features(image))


def of_a_compiled_module():
    """Return probabilities before adjustment and after it, and what they are to be."""
    task, data = ClassificationTask(Network(), 3), ToyImages()
    compiled = torch.compile(task, backend="eager")
    before = trainer().predict(compiled, datamodule=data)
    adjustment = PosthocLogitAdjustment(1.0, class_counts=[1000, 10, 1])
    after = trainer(adjustment).predict(compiled, datamodule=data)
    expected = trainer(adjustment).predict(task, datamodule=data)
    return [torch.cat([batch["probability"] for batch in found]) for found in (before, after, expected)]


def test_it_changes_a_module_that_was_compiled_and_called_before():
    # in a process of its own: inside pytest's even a network that is not traced anew calls the hook
    ((before, after, expected),) = run(of_a_compiled_module, processes=1)
    torch.testing.assert_close(after, expected)
    assert (after - before).abs().max() > 0.1
