"""The replicas' work over a tiny random model: what an answer depends on, and stopping."""

import asyncio
import io
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.service.fake import encode
from uniemo_ray import UniEmo
from uniemo_ray.data.images import decode_rgb
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.service.backend import Look, Order, Painted, Refusal, Seen
from uniemo_ray.service.generations import JobBoard
from uniemo_ray.service.workers.illustrator import GONE, Illustrator, Progress
from uniemo_ray.service.workers.job import run_job
from uniemo_ray.service.workers.library import Library, describe
from uniemo_ray.service.workers.understander import Understander
from uniemo_ray.store.local import LocalStore

ORDER = Order("default", {"awe": 1.0}, None, 1, 7, 3, None, None, None, "condition", "png")


@pytest.fixture(scope="module")
def library(model_folder) -> Library:
    return Library(models={"default": str(model_folder)}, understand_micro_batch=3, generate_micro_batch=4)


@pytest.fixture(scope="module")
def model(library) -> UniEmo:
    return library.load("default")


@pytest.fixture(scope="module")
def understander(library, model) -> Understander:
    return library.understander(model)


@pytest.fixture(scope="module")
def illustrator(library, model) -> Illustrator:
    return library.illustrator(model)


def tickets(illustrator: Illustrator, *orders: Order):
    return [ticket for order in orders for ticket in illustrator.tickets(order)]


def picture(seed: int) -> bytes:
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)))


def test_pictures_are_shown_as_the_model_wants_them(library, parts):
    """Once: shorter side to 8/7 of the input and the centre would differ the second time."""
    encoder = parts.config.encoder.model_copy(update={"preprocess": "half"})
    model = UniEmo(replace(parts, config=parts.config.model_copy(update={"encoder": encoder})))
    (seen,) = library.understander(model).understand([Look(picture(0), False, "default")])
    (own,) = model.understand(picture(0), micro_batch=3)
    assert list(seen.result.emotions.values()) == pytest.approx(list(own.emotions.values()), abs=1e-6)
    (twice,) = model.understand(model.preprocess.square(decode_rgb(picture(0), 10**6)), micro_batch=3)
    assert list(twice.emotions.values()) != pytest.approx(list(own.emotions.values()), abs=1e-5)


def test_understanding_is_the_models_own_and_independent_of_company(understander, model):
    looks = [Look(picture(i), i % 2 == 0, "default") for i in range(5)]
    together = understander.understand(looks)
    for look, seen in zip(looks, together, strict=True):
        alone = understander.understand([look])[0]
        assert isinstance(seen, Seen)
        assert seen.result.emotions == alone.result.emotions
        assert (seen.result.scene_attention is not None) == look.with_attention
        direct = model.understand([look.data], micro_batch=3)[0]
        assert seen.result.emotions == direct.emotions
    assert [seen.batch for seen in together] == [3, 2, 3, 2, 3]


def test_an_image_that_cannot_be_decoded_fails_alone(understander):
    results = understander.understand(
        [Look(data, False, "default") for data in (picture(1), picture(2)[:-900], picture(3))]
    )
    assert results[1] == Refusal("the file ends before the picture does")
    assert isinstance(results[0], Seen)
    assert isinstance(results[2], Seen)


def test_bytes_depend_on_the_order_alone(illustrator):
    others = [
        replace(ORDER, emotions={"fear": 1.0, "awe": 2.0}, seed=9, n=3),
        replace(ORDER, steps=2, format="webp"),
        replace(ORDER, seed=8, format="jpeg"),
    ]
    alone = illustrator(tickets(illustrator, ORDER))[0]
    crowd = illustrator(tickets(illustrator, *others, ORDER))
    assert crowd[-1].data == alone.data
    assert alone.data == illustrator(tickets(illustrator, ORDER))[0].data
    assert len({image.data for image in crowd}) == len(crowd)
    third = illustrator(tickets(illustrator, replace(others[0], n=1, seed=11)))[0]
    assert third.data == crowd[2].data  # image i is that of seed + i


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_every_format_carries_its_provenance(illustrator, model, kind):
    image = illustrator(tickets(illustrator, replace(ORDER, format=kind)))[0]
    assert Image.open(io.BytesIO(image.data)).format == kind.upper()
    text = read_provenance(image.data)
    assert text == image.provenance
    assert (text["seed"], text["model"], text["micro_batch"]) == (7, model.parts.fingerprint, 4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": "very " * 60 + "{} room"}, "prompt"),
        ({"width": 30}, "width"),
        ({"emotions": {"sadness": 1.0}}, "emotion"),
    ],
)
def test_what_the_model_cannot_do_is_a_refusal(illustrator, change, field):
    found = illustrator.tickets(replace(ORDER, **change))
    result = found if isinstance(found, Refusal) else illustrator(found)[0]
    assert isinstance(result, Refusal), result
    assert (result.field, result.is_ours) == (field, False)


def test_the_painter_stops_when_nobody_waits(illustrator):
    first, second = tickets(illustrator, replace(ORDER, steps=9, n=2))
    steps: list[Progress] = []

    def watch(progress: Progress) -> None:
        steps.append(progress)
        first.is_cancelled = progress.step >= 2
        second.is_cancelled = progress.step >= 4

    first.on_step = second.on_step = watch
    assert illustrator([first, second]) == [GONE, GONE]
    assert max(progress.step for progress in steps) == 4


def test_one_who_still_waits_gets_the_image(illustrator):
    first, second = tickets(illustrator, replace(ORDER, n=2))
    expected = illustrator(tickets(illustrator, replace(ORDER, seed=8)))[0].data
    first.on_step = lambda _: setattr(first, "is_cancelled", True)
    assert illustrator([first, second])[1].data == expected


def test_previews_are_few_small_and_not_the_last_step(illustrator):
    ticket = tickets(illustrator, replace(ORDER, steps=20))[0]
    seen: list[Progress] = []
    ticket.on_step = seen.append
    illustrator([ticket])
    assert [progress.step for progress in seen] == list(range(1, 21))
    shown = [progress for progress in seen if progress.preview]
    assert [progress.step for progress in shown] == [3, 6, 9, 12, 15, 18]
    assert Image.open(io.BytesIO(shown[0].preview)).size == (32, 32)


def test_a_description_says_what_the_model_can(illustrator, model):
    found = describe(illustrator)
    assert found.fingerprint == model.parts.fingerprint
    assert "sadness" in found.emotions
    assert "sadness" not in found.paintable
    assert found.pixels_multiple == 4
    assert found.defaults == {"steps": 3, "guidance": 4.0, "width": 32, "height": 32, "prompt": "{}"}


def test_a_model_that_only_understands_can_paint_nothing(library, parts):
    illustrator = library.illustrator(UniEmo(replace(parts, diffusion=None)))
    found = describe(illustrator)
    assert (found.paintable, found.emotions) == ((), parts.labels.labels)
    assert isinstance(illustrator.tickets(ORDER), Refusal)


@pytest.fixture
def board(tmp_path) -> JobBoard:
    return JobBoard(LocalStore(tmp_path), ttl_s=60)


def run(illustrator, board, job, *, paint=None, timeout_s=60.0):
    turn = asyncio.Lock()

    async def own_paint(ticket):
        async with turn:
            return (await asyncio.to_thread(illustrator, [ticket]))[0]

    work = run_job(
        job.id, illustrator.tickets(job.order), paint=paint or own_paint, board=board, timeout_s=timeout_s
    )
    asyncio.run(work)
    return board.state(job)


def test_a_generation_from_queued_to_done(illustrator, board):
    job = board.create(replace(ORDER, n=2, steps=20), owner="ann", patience_s=60)
    state = run(illustrator, board, job)
    assert state.status == "done"
    assert [(image.step, image.of) for image in state.images] == [(20, 20), (20, 20)]
    expected = illustrator(tickets(illustrator, replace(job.order, n=1, seed=8)))[0]
    assert board.read_picture(job.id, "image-1") == expected.data
    assert state.images[1].provenance == expected.provenance
    assert state.images[1].batch == 1
    assert board.read_picture(job.id, "preview-0") is not None


def test_a_generation_that_is_cancelled_stops_painting(illustrator, board):
    job = board.create(replace(ORDER, n=2), owner="ann", patience_s=60)
    started: list[bool] = []

    async def paint_slowly(ticket):
        started.append(ticket.is_cancelled)
        board.cancel(job.id)
        while not ticket.is_cancelled:
            await asyncio.sleep(0.01)
        return GONE

    assert run(illustrator, board, job, paint=paint_slowly).status == "cancelled"
    assert started == [False, False]
    assert board.store.read_json(f"{job.id}/state.json")["status"] == "cancelled"


class Hasty(JobBoard):
    """Its generation is cancelled just before its image is written."""

    def write_picture(self, job_id: str, name: str, data: bytes) -> None:
        if name == "image-0":
            self.cancel(job_id)
        super().write_picture(job_id, name, data)


def test_nothing_is_kept_of_what_is_cancelled_at_the_last_moment(illustrator, tmp_path):
    board = Hasty(LocalStore(tmp_path), ttl_s=60)
    job = board.create(replace(ORDER, n=2), owner="ann", patience_s=60)
    assert run(illustrator, board, job).status == "cancelled"
    assert sorted(path.name for path in (tmp_path / job.id).iterdir()) == ["cancel", "job.json", "state.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"emotions": {"sadness": 1.0}}, "no image of 'sadness'"), ({"width": 30}, "multiple of 4")],
)
def test_a_generation_that_cannot_be_fails_with_the_reason(illustrator, board, change, words):
    job = board.create(replace(ORDER, **change), owner="ann", patience_s=60)
    state = run(illustrator, board, job)
    assert state.status == "failed"
    assert words in state.problem.detail


def test_an_inner_error_or_too_long_a_time_fails_it_without_details(illustrator, board):
    async def break_down(ticket):
        raise RuntimeError("secret")

    async def wait(ticket):
        await asyncio.sleep(60)

    async def dawdle(ticket):
        await asyncio.sleep(0.5)  # longer than it may take, but it has not begun yet
        ticket.on_step(Progress(1, 4, None))
        await asyncio.sleep(60)

    job = board.create(ORDER, owner="ann", patience_s=60)
    state = run(illustrator, board, job, paint=break_down)
    assert state.problem.is_ours
    assert "secret" not in state.problem.detail
    job = board.create(ORDER, owner="ann", patience_s=60)
    state = run(illustrator, board, job, paint=wait, timeout_s=0.3)
    assert (state.status, state.problem.detail) == ("failed", "it waited too long for its turn")
    job = board.create(ORDER, owner="ann", patience_s=60)
    began = time.monotonic()
    state = run(illustrator, board, job, paint=dawdle, timeout_s=0.8)
    assert (state.status, state.problem.detail) == ("failed", "painting took too long")
    assert time.monotonic() - began > 1.3
    assert isinstance(illustrator(tickets(illustrator, ORDER))[0], Painted)
