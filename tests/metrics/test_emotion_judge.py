"""The public judge behind Emo-A."""

import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.metrics.sets import COUNT, LABELS, image_set, yardstick
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.metrics import emotion_judge
from uniemo_ray.metrics.emotion_judge import JUDGE_FILE, EmotionJudge, has_emotion_judge
from uniemo_ray.metrics.generation import measure_images
from uniemo_ray.models.clip import load_clip

PUBLISHED_ORDER = {
    "amusement": 0, "awe": 1, "contentment": 2, "excitement": 3,
    "anger": 4, "disgust": 5, "fear": 6, "sadness": 7,
}  # fmt: skip
"""`emotion_list_8` of EmoGen's training/inference.py."""


def layer(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"fc.weight": torch.randn(8, 768, generator=rng), "fc.bias": torch.randn(8, generator=rng)}


def put(folder: Path, state: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The judge's file with other content, whose digest takes the published one's place."""
    path = folder / JUDGE_FILE
    torch.save(state, path)
    monkeypatch.setattr(emotion_judge, "JUDGE_SHA256", sha256(path.read_bytes()).hexdigest())
    return folder


def test_its_outputs_are_the_emotions_in_the_published_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = layer()
    judge = EmotionJudge(put(tmp_path, state, monkeypatch))
    features = np.random.default_rng(0).normal(size=(50, 768)).astype(np.float32)
    net = torch.nn.Linear(768, 8)
    net.load_state_dict({name.removeprefix("fc."): value for name, value in state.items()})
    with torch.no_grad():
        expected = net(torch.from_numpy(features)).double().softmax(dim=1).numpy()
    found = judge(features)
    for name, column in PUBLISHED_ORDER.items():
        np.testing.assert_allclose(found[:, EMOTIONS.index(name)], expected[:, column], rtol=1e-5)


def test_an_order_of_ours_would_not_change_its_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = EmotionJudge(put(tmp_path, layer(), monkeypatch))
    features = np.random.default_rng(0).normal(size=(5, 768)).astype(np.float32)
    before = judge(features)
    monkeypatch.setattr(emotion_judge, "EMOTIONS", EMOTIONS[::-1])
    np.testing.assert_array_equal(judge(features), before[:, ::-1])


def test_two_judges_have_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is always wrong here, the public one always right: neither speaks for the other."""
    state = {"fc.weight": torch.zeros(8, 768), "fc.bias": torch.zeros(8)}
    state["fc.weight"][:, :8] = 100 * torch.eye(8)
    judge = EmotionJudge(put(tmp_path, state, monkeypatch))
    wanted = np.array([EMOTIONS.index(name) for name in LABELS])
    features = np.zeros((COUNT, 768), dtype=np.float32)
    features[np.arange(COUNT), wanted] = 1
    wrong = np.eye(8, dtype=np.float32)[(wanted + 1) % 8]
    values = {"clip_feature": features, "probabilities": wrong, "is_generated": False}
    clip = yardstick(published_clip=lambda: load_clip("tiny"))
    found = measure_images(image_set(**values, judge=judge), clip)
    assert (found.emo_a, found.emo_a_clip) == (1.0, 0.0)
    assert found.per_emotion[LABELS[0]]["emo_a"] == 1.0
    assert found.per_emotion[LABELS[0]]["emo_a_clip"] == 0.0
    assert (found.emo_a_two_class, found.sem_d_clip) == (1.0, None)
    other = measure_images(image_set(**values), yardstick())
    assert other.emo_a is None
    assert other.sem_d_l14 is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            {"weight": torch.zeros(8, 768), "bias": torch.zeros(8)},
            r"expected fc\.weight \(8, 768\).*got weight",
        ),
        ({"fc.weight": torch.zeros(8, 512), "fc.bias": torch.zeros(8)}, r"got fc\.weight \(8, 512\)"),
        ({"fc.weight": torch.zeros(6, 768), "fc.bias": torch.zeros(6)}, r"got fc\.weight \(6, 768\)"),
        ({**layer(), "optimizer": torch.zeros(1)}, "is no Emo-A judge"),
        ({}, "got nothing"),
        ({"fc.weight": 3}, "no plain state dict of tensors"),
        ([torch.zeros(1)], "no plain state dict of tensors"),
        ({"fc.weight": Path("x")}, "which is not allowed"),
    ],
)
def test_another_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: object, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as error:
        EmotionJudge(put(tmp_path, state, monkeypatch))
    assert "\n" not in str(error.value)
    assert JUDGE_FILE in str(error.value)


def test_a_file_of_the_same_form_with_other_numbers_is_refused(tmp_path: Path) -> None:
    torch.save(layer(), tmp_path / JUDGE_FILE)
    with pytest.raises(ValueError, match=r"another layer than the published judge.*expected 80f72314"):
        EmotionJudge(tmp_path)


def test_nothing_in_the_file_is_executed(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    (tmp_path / JUDGE_FILE).write_bytes(pickle.dumps({"fc.weight": Harmful()}))
    with pytest.raises(ValueError, match="is damaged, or holds more than tensors"):
        EmotionJudge(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_without_the_file_it_says_what_it_needs(tmp_path: Path) -> None:
    assert not has_emotion_judge(None)
    assert not has_emotion_judge(tmp_path)
    with pytest.raises(ValueError, match=r"emo_a needs time_2023-11-12_03-29-best\.pth"):
        EmotionJudge(tmp_path)


def test_features_of_another_clip_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = EmotionJudge(put(tmp_path, layer(), monkeypatch))
    with pytest.raises(ValueError, match=r"features \(M, 768\) of CLIP ViT-L/14, got \(2, 512\)"):
        judge(np.zeros((2, 512), dtype=np.float32))
