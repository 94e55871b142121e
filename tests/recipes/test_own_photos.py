"""What is derived from photos, first weights and a machine, and that the user has the last word."""

from collections.abc import Callable

import pytest

from sequencer2d.recipes.own_photos import Machine, Photos, Plan, Start, plan
from sequencer2d.training.config import TrainConfig, validate
from sequencer2d.training.fields import with_overrides

PHOTOS = Photos("photos", ("", None), (80,) * 5, 64, 4096)
SCRATCH = Start("scratch", "sequencer2d_n", "random weights")
TRAINED = Start("finetune", "sequencer2d_s", "weights", {"model.checkpoint": "w.safetensors", "data.image_size": 224})


def machine_of(rate: float, bf16: float = 2.0, parts: int = 1) -> Callable[[TrainConfig], tuple[TrainConfig, float]]:
    """A machine that trains 64² pixels at `rate` images/s in fp32, and splits batches into `parts`."""

    def speed(config: TrainConfig) -> tuple[TrainConfig, float]:
        factor = bf16 if config.precision == "bf16" else 1.0
        fitting = with_overrides(config, {"optimizer.accumulation": parts})
        return fitting, rate * factor * 64**2 / (config.data.size[0] * config.data.size[1])

    return speed


def make(photos: Photos = PHOTOS, start: Start = SCRATCH, rate: float = 100, **options) -> Plan:
    machine = options.pop("machine", Machine("cpu", 2))
    parts, bf16 = options.pop("parts", 1), options.pop("bf16", 2.0)
    found = plan(photos, start, machine, machine_of(rate, bf16, parts), minutes=8, output="runs/x", fields=options)
    validate(found.config)
    return found


def test_five_classes_of_80_photos() -> None:
    config = make().config
    assert (config.data.val_fraction, config.data.train_split, config.data.val_split) == (0.2, "", "val")
    assert (config.data.batch_size, config.data.image_size, config.precision) == (32, 64, "bf16")
    assert config.model.name == "sequencer2d_n_p4"
    assert (config.run.epochs, config.run.log_interval, config.run.eval_interval) == (120, 10, 6)
    assert (config.run.compile, config.regularization.class_weights) == (False, "none")


def test_time_limits_size_first_and_then_epochs() -> None:
    big = Photos("photos", ("", None), (80,) * 5, 800, 640_000)
    large = make(big, rate=100_000).config
    assert (large.data.image_size, large.model.name) == (224, "sequencer2d_n")
    assert make(big, rate=100).config.data.image_size == 64
    slow = make(big, rate=0.5).config
    assert (slow.data.image_size, slow.run.epochs) == (32, int(0.6 * 480 * 0.5 * 2 * 4 / 320))


def test_trained_weights_keep_their_size_and_their_first_layers() -> None:
    config = make(start=TRAINED, rate=1000).config
    assert (config.model.checkpoint, config.data.image_size, config.run.epochs) == ("w.safetensors", 224, 30)
    assert (config.optimizer.layer_decay, config.data.mixup) == (0.8, 0.0)
    head = make(start=Start("head", TRAINED.name, "weights", TRAINED.fields), rate=1000).config
    assert (head.model.train, head.model.drop_path_rate, head.optimizer.layer_decay) == ("head", 0.0, 1.0)


def test_precision_is_the_faster_one_and_a_batch_is_split_where_memory_ends() -> None:
    assert make(bf16=0.5).config.precision == "fp32"
    config = make(machine=Machine("cuda", 16), parts=4).config
    assert (config.precision, config.optimizer.accumulation, config.run.device) == ("bf16", 4, "cuda")


def test_fewer_threads_are_taken_where_they_are_faster() -> None:
    def speed(config: TrainConfig) -> tuple[TrainConfig, float]:
        return config, 100.0 / (config.run.cpu_threads or 1)

    def threads(machine: Machine, **fields: str) -> int | None:
        fields = {path.replace("_", ".", 1): value for path, value in fields.items()}
        return plan(PHOTOS, SCRATCH, machine, speed, minutes=8, output="x", fields=fields).config.run.cpu_threads

    assert threads(Machine("cpu", 4, busy=True)) == 2, "threads that wait for each other are slow on a busy machine"
    assert threads(Machine("cpu", 4)) == 4, "a machine that is free is used"
    assert threads(Machine("cuda", 4, busy=True)) is None
    assert threads(Machine("cpu", 4, busy=True), run_cpu_threads="3") == 3


@pytest.mark.parametrize("counts, weighted", [((80, 60), "none"), ((80, 30), "balanced")])
def test_unequal_classes_are_weighted(counts: tuple[int, ...], weighted: str) -> None:
    photos = Photos("photos", ("train", "val"), counts, 64, 4096)
    config = make(photos).config
    assert config.regularization.class_weights == weighted
    assert (config.data.val_split, config.data.val_fraction) == ("val", 0.0), "the folder's own split"


def test_what_the_user_sets_stays_and_counts() -> None:
    found = make(**{"run.epochs": "7", "data.batch_size": "8", "data.image_size": "32"})
    assert (found.config.run.epochs, found.config.data.batch_size, found.config.data.image_size) == (7, 8, 32)
    rows = {path: (value, why) for path, value, why in found.rows()}
    assert rows["run.epochs"] == ("7", "you set it")
    assert rows["run.log_interval"][0] == "40"
    assert rows["model.name"][0] == "sequencer2d_n_p4"


def measured(start: Start, **fields: str) -> list[tuple[int, int]]:
    """The sizes that are measured on a slow CPU, each in both precisions."""
    seen = []

    def speed(config: TrainConfig) -> tuple[TrainConfig, float]:
        seen.append(config.data.size)
        return config, 0.1

    big = Photos("photos", ("", None), (80,) * 5, 150, 22_500)
    plan(big, start, Machine("cpu", 2), speed, minutes=8, output="x", fields=fields)
    assert seen[::2] == seen[1::2]
    return [size for size, _ in seen[::2]]


def test_sizes_are_chosen_for_random_weights_alone_and_unless_the_user_did() -> None:
    assert measured(SCRATCH) == [112, 64, 32]
    assert measured(SCRATCH, **{"data.image_size": "48"}) == [48]
    assert measured(TRAINED) == [224]


CPU = Machine("cpu", 2)


def with_images(count: int, machine: Machine = CPU, pixels: int = 4096, **options: str) -> TrainConfig:
    return make(Photos("photos", ("train", "val"), (count,), 64, pixels), machine=machine, **options).config


@pytest.mark.parametrize(
    ("images", "batch"), [(2, 2), (3, 2), (5, 4), (9, 8), (127, 8), (128, 16), (511, 32), (512, 64), (9999, 64)]
)
def test_a_batch_is_a_power_of_two_for_8_steps_an_epoch(images: int, batch: int) -> None:
    assert with_images(images).data.batch_size == batch


def test_readers_are_half_of_a_cpus_cores_and_all_beside_a_gpu() -> None:
    assert [with_images(80, Machine("cpu", cores)).data.workers for cores in (1, 2, 3, 16, 18)] == [1, 1, 1, 8, 8]
    assert [with_images(80, Machine("cuda", cores)).data.workers for cores in (1, 16, 17)] == [1, 16, 16]


def test_images_are_kept_if_they_take_a_gibibyte_at_most() -> None:
    fits = 2**30 // (3 * 1024)
    assert with_images(1024, pixels=fits).data.cache
    assert not with_images(1024, pixels=fits + 1).data.cache


def test_the_schedule_follows_the_epochs() -> None:
    short, long = (with_images(80, **{"run.epochs": epochs}) for epochs in ("13", "60"))
    assert (short.schedule.warmup_epochs, long.schedule.warmup_epochs) == (1.3, 5.0)
    assert (short.run.eval_interval, long.run.eval_interval) == (1, 3)
    assert short.run.log_interval == 10
    assert with_images(9999, **{"run.epochs": "2"}).run.log_interval == 50
    averaged = [with_images(80, **{"run.epochs": epochs}).regularization.ema_decay for epochs in ("19", "20")]
    assert averaged == [None, 0.99], "10 steps an epoch, and 200 steps or more"


def test_classes_are_weighted_from_half_as_many_images_more() -> None:
    weights = [make(Photos("p", ("", None), counts, 64, 4096)).config.regularization.class_weights
               for counts in ((60, 40), (61, 40))]  # fmt: skip
    assert weights == ["none", "balanced"]


def test_a_split_to_validate_on_is_held_out_under_a_name_of_its_own() -> None:
    for train, name in (("", "val"), ("train", "val"), ("val", "held-out")):
        config = make(Photos("p", (train, None), (50, 50), 64, 4096)).config
        assert (config.data.train_split, config.data.val_split, config.data.val_fraction) == (train, name, 0.2)
