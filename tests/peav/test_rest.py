"""What else is heard: the names that fit what was left over, never the one that was asked for."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from peav.rest import SAME, rest_query

# Three names, far from each other, and their counterparts among frames in another order of axes.
CLIPS = torch.eye(4)[:3]
FRAMES = torch.eye(4)[1:]


def test_what_was_heard_is_named():
    heard = F.normalize(torch.tensor([[0.1, 1.0, 0.0, 0.2]]), dim=-1)
    clip, frame = rest_query(heard, (CLIPS, FRAMES), CLIPS[:1])
    assert float(clip @ CLIPS[1]) > 0.99 and float(frame @ FRAMES[1]) > 0.99


def test_what_was_asked_for_is_not_the_rest_though_much_of_it_was_left_over():
    heard = F.normalize(torch.tensor([[1.0, 0.4, 0.0, 0.0]]), dim=-1)
    clip, _ = rest_query(heard, (CLIPS, FRAMES), CLIPS[:1])
    assert abs(float(clip @ CLIPS[0])) < 1e-6 and float(clip @ CLIPS[1]) > 0.9
    # A name that nearly means the same is left out as well; one further away is not.
    for cosine, left_out in ((SAME + 0.05, True), (SAME - 0.05, False)):
        near = torch.tensor([[cosine, 0.0, 0.0, (1 - cosine**2) ** 0.5]])
        clip, _ = rest_query(heard, (CLIPS, FRAMES), near)
        assert (float(clip @ CLIPS[0]) < 1e-6) == left_out


def test_two_that_fit_alike_count_alike():
    heard = F.normalize(torch.tensor([[0.0, 1.0, 1.0, 0.0]]), dim=-1)
    clip, frame = rest_query(heard, (CLIPS, FRAMES), CLIPS[:1])
    half = 0.5**0.5
    torch.testing.assert_close(clip, torch.tensor([[0.0, half, half, 0.0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(frame, torch.tensor([[0.0, 0.0, half, half]]), atol=1e-3, rtol=0)


def test_without_words_no_name_is_left_out_and_rows_do_not_mix():
    heard = CLIPS.clone()
    query = torch.stack((torch.full((4,), torch.nan), CLIPS[1], CLIPS[0]))
    clip, _ = rest_query(heard, (CLIPS, FRAMES), query)
    assert float(clip[0] @ CLIPS[0]) > 0.99
    assert abs(float(clip[1] @ CLIPS[1])) < 1e-6
    assert float(clip[2] @ CLIPS[2]) > 0.99


def test_where_all_names_mean_what_was_asked_for_none_is_left_out():
    clip, frame = rest_query(CLIPS[:1], (CLIPS[:1], FRAMES[:1]), CLIPS[:1])
    torch.testing.assert_close((clip, frame), (CLIPS[:1], FRAMES[:1]))
