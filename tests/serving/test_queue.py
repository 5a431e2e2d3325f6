"""The queue loses nothing, keeps batches within their tokens, and lets small requests pass large ones."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text2token.serving.queue import Job, QueueFullError, TokenQueue

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def job(*lengths):
    return Job([[0] * length for length in lengths])


def drain(queue):
    queue.close()
    batches = []
    while batch := queue.take():
        batches.append(batch)
        for entry in batch:
            entry.job.finish(entry.place, torch.tensor([float(len(entry.ids))]))
    return batches


@given(st.lists(LENGTHS, min_size=1, max_size=6), st.integers(1, 200))
def test_each_text_is_in_one_batch_and_comes_back_in_its_place(jobs, batch_tokens):
    queue = TokenQueue(10**9, batch_tokens)
    submitted = [job(*lengths) for lengths in jobs]
    for one in submitted:
        queue.submit(one)
    batches = drain(queue)
    taken = [(id(entry.job), entry.place) for batch in batches for entry in batch]
    assert len(taken) == len(set(taken)) == sum(map(len, jobs))
    for batch in batches:
        padded = len(batch) * max(len(entry.ids) for entry in batch)
        assert padded <= batch_tokens or len(batch) == 1
    for one, lengths in zip(submitted, jobs, strict=True):
        assert one.done.result().flatten().tolist() == [float(length) for length in lengths]
    assert queue.waiting_tokens == 0


def test_a_query_waits_for_no_second_batch_of_a_large_request():
    queue = TokenQueue(10**9, 100)
    large, query = job(*[20] * 50), job(10)
    queue.submit(large)
    queue.take()  # in work when the query arrives
    queue.submit(query)
    assert [entry.job for entry in queue.take()] == [query]


def test_a_large_request_goes_on_under_a_stream_of_queries():
    queue = TokenQueue(10**9, 100)
    large = job(*[20] * 50)
    queue.submit(large)
    kinds = []
    for _ in range(10):
        queue.submit(job(10))
        kinds.append(queue.take()[0].job is large)
    assert sum(kinds) == 5


def test_large_requests_share_their_batches():
    queue = TokenQueue(10**9, 100)
    first, second = job(*[20] * 50), job(*[20] * 50)
    queue.submit(first)
    queue.submit(second)
    batch = queue.take()
    assert {entry.job for entry in batch} == {first, second}


def test_a_batch_has_one_precision():
    queue = TokenQueue(10**9, 100)
    for bf16 in (False, True, False, True):
        queue.submit(Job([[0] * 10] * 3, bf16))
    batches = drain(queue)
    assert [[entry.job.bf16 for entry in batch] for batch in batches] == [[False] * 6, [True] * 6]


def test_texts_of_one_length_share_a_batch():
    queue = TokenQueue(10**9, 120)
    queue.submit(job(40, 4, 40, 4, 40, 4))
    assert sorted(len(entry.ids) for entry in queue.take()) == [40, 40, 40]
    assert sorted(len(entry.ids) for entry in queue.take()) == [4, 4, 4]


def test_a_full_queue_refuses_and_takes_again_when_it_has_room():
    queue = TokenQueue(50, 100)
    queue.submit(job(60))  # larger than all of it, and nothing waits
    with pytest.raises(QueueFullError):
        queue.submit(job(1))
    queue.take()
    queue.submit(job(30))
    queue.submit(job(20))
    with pytest.raises(QueueFullError):
        queue.submit(job(1))


def test_a_cancelled_request_frees_its_place():
    queue, other = TokenQueue(50, 10), TokenQueue(50, 10)
    gone, stays, elsewhere = job(10, 10, 10), job(10), job(20)
    queue.submit(gone)
    queue.submit(stays)
    other.submit(elsewhere)
    for one in (gone, elsewhere, job(7)):  # each in the queue where it waits, and the last one waits nowhere
        one.cancel()
    assert (queue.waiting_tokens, other.waiting_tokens) == (10, 0)
    assert [entry.job for batch in drain(queue) for entry in batch] == [stays]
    assert gone.done.cancelled()


def test_a_failed_request_frees_its_place():
    queue = TokenQueue(50, 10)
    failed = job(10, 10, 10)
    queue.submit(failed)
    queue.take()
    failed.fail(RuntimeError("broken"))
    assert queue.waiting_tokens == 0
    assert isinstance(failed.done.exception(), RuntimeError)
    queue.close()
    assert queue.take() == []


def test_a_closed_queue_gives_what_waits_and_takes_no_more():
    queue = TokenQueue(50, 10)
    queue.submit(job(10))
    queue.close()
    with pytest.raises(QueueFullError):
        queue.submit(job(1))
    assert len(queue.take()) == 1
    assert queue.take() == []


def test_a_waiting_thread_wakes_up():
    queue, taken = TokenQueue(50, 10), []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.submit(job(5))
    thread.join(10)
    assert len(taken[0]) == 1
