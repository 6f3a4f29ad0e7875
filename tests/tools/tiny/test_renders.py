"""Renders for the base models."""

import numpy as np

from tools.tiny.renders import NONE, Renders, draw_renders, join_renders


def test_a_render_depends_on_seed_and_index_alone():
    whole = draw_renders(range(6), seed=3, size_px=32)
    parts = join_renders(
        [draw_renders(range(0, 2), seed=3, size_px=32), draw_renders(range(2, 6), seed=3, size_px=32)]
    )
    np.testing.assert_array_equal(whole.pixels, parts.pixels)
    assert (draw_renders(range(6), seed=4, size_px=32).pixels != whole.pixels).any()


def test_bare_renders_lack_exactly_one_part():
    renders = draw_renders(range(120), seed=0, size_px=32, bare_share=0.3)
    assert not ((renders.scenes == NONE) & (renders.objects == NONE)).any()
    assert 0.15 < (renders.scenes == NONE).mean() < 0.45
    np.testing.assert_array_equal(renders.boxes[:, 2] == 0, renders.objects == NONE)


def test_save_and_load(tmp_path):
    renders = draw_renders(range(3), seed=1, size_px=32)
    renders.save(tmp_path / "r.npz")
    again = Renders.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(again.pixels, renders.pixels)
    np.testing.assert_array_equal(again.boxes, renders.boxes)
