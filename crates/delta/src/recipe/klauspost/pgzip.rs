//! Blocks that are encoded on their own, as klauspost/pgzip (MIT) does it.
//!
//! Every block is a deflate stream of its own, with the end of the block before as its dictionary, up to a sync marker.
//! The last one is shorter than the others, so it may be empty, and an empty final deflate block stands behind it.
//! What one block becomes depends on nothing else, so any number of threads writes the same bytes.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Group, Level};
use crate::recipe::Encode;

/// How much of a block is the dictionary of the next one, in bytes.
const DICTIONARY: usize = 16 << 10;

/// How much content a block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockSize(usize);

impl BlockSize {
    /// What pgzip takes by default.
    pub(crate) const DEFAULT: Self = Self(1 << 20);

    /// What umoci takes up to 0.4.7.
    pub(crate) const UMOCI: Self = Self(256 << 10);

    /// The largest block that is taken; only the memory that blocks need sets this limit.
    const MAX: usize = 16 << 20;

    /// A size in bytes; `None` if pgzip does not take it, or if it is above 16 MiB.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        (DICTIONARY < bytes && bytes <= Self::MAX).then_some(Self(bytes))
    }

    /// The size in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.0
    }
}

/// How much content may be with threads, in bytes: each keeps up to three times as much besides, for its output.
const WITH_THREADS: usize = 16 << 20;

/// Writes the body of a gzip member in blocks.
///
/// With one thread, blocks are encoded where they are written. With more, that many threads encode, unless blocks are so
/// large that these would be more than [`WITH_THREADS`]; and the blocks in memory, each as content or as output, are two
/// more at most: one that waits for a thread, and one that is collected.
#[derive(Debug)]
pub(crate) struct Encoder {
    size: usize,
    /// The block that is being collected, never whole between calls.
    block: Vec<u8>,
    /// The end of the block before.
    dictionary: Vec<u8>,
    workers: Workers,
}

impl Encoder {
    pub(crate) fn new(group: Group, level: Level, size: BlockSize, threads: NonZeroUsize) -> Self {
        let workers = match threads.get().min(WITH_THREADS / size.0) {
            1 => Workers::None(Box::new(super::Encoder::new(group, level))),
            threads => Workers::Some(Pool::new(threads, || super::Encoder::new(group, level))),
        };
        Self { size: size.0, block: Vec::with_capacity(size.0), dictionary: Vec::new(), workers }
    }

    fn end_block(&mut self, last: bool, out: &mut Vec<u8>) {
        let next = self.block[self.block.len().saturating_sub(DICTIONARY)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, next);
        match &mut self.workers {
            Workers::None(encoder) => {
                encode_block(encoder, &dictionary, &self.block, last, out);
                self.block.clear();
            }
            Workers::Some(pool) => {
                let block = std::mem::replace(&mut self.block, Vec::with_capacity(self.size));
                pool.start(dictionary, block, last, out);
            }
        }
    }
}

impl Encode for Encoder {
    fn write(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        while !content.is_empty() {
            let (now, later) = content.split_at(content.len().min(self.size - self.block.len()));
            self.block.extend_from_slice(now);
            content = later;
            if self.block.len() == self.size {
                self.end_block(false, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.end_block(true, out);
        if let Workers::Some(pool) = &mut self.workers {
            pool.finish(out);
        }
    }
}

fn encode_block(
    encoder: &mut super::Encoder,
    dictionary: &[u8],
    block: &[u8],
    last: bool,
    out: &mut Vec<u8>,
) {
    encoder.restart(dictionary);
    encoder.write(block, out);
    encoder.flush(out);
    if last {
        encoder.finish(out);
    }
}

#[derive(Debug)]
enum Workers {
    None(Box<super::Encoder>),
    Some(Pool),
}

/// A block to be encoded.
#[derive(Debug)]
struct Job {
    dictionary: Vec<u8>,
    block: Vec<u8>,
    last: bool,
    done: SyncSender<Vec<u8>>,
}

/// Threads that encode blocks, and the blocks that are not written yet, in their order.
#[derive(Debug)]
struct Pool {
    /// `None` only while this is dropped, which ends the threads.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    waiting: VecDeque<Receiver<Vec<u8>>>,
}

impl Pool {
    fn new(threads: usize, encoder: impl Fn() -> super::Encoder) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let work = |mut encoder: super::Encoder| {
            let queue = Arc::clone(&queue);
            move || {
                while let Some(job) = next(&queue) {
                    let mut out = Vec::with_capacity(job.block.len() / 2);
                    encode_block(&mut encoder, &job.dictionary, &job.block, job.last, &mut out);
                    // Nobody waits for it when the whole encoder was given up.
                    let _ = job.done.send(out);
                }
            }
        };
        let threads = (0..threads).map(|_| std::thread::spawn(work(encoder()))).collect();
        Self { jobs: Some(jobs), threads, waiting: VecDeque::new() }
    }

    /// Hands a block to a thread, and appends to `out` what is there of the blocks before.
    fn start(&mut self, dictionary: Vec<u8>, block: Vec<u8>, last: bool, out: &mut Vec<u8>) {
        while self.waiting.len() > self.threads.len() {
            self.write_first(out);
        }
        while let Some(ready) = self.waiting.front().and_then(|first| first.try_recv().ok()) {
            self.waiting.pop_front();
            out.extend_from_slice(&ready);
        }
        let (done, result) = sync_channel(1);
        self.waiting.push_back(result);
        let jobs = self.jobs.as_ref().expect("jobs are taken until this is dropped");
        jobs.send(Job { dictionary, block, last, done }).expect("the threads wait for jobs");
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        while !self.waiting.is_empty() {
            self.write_first(out);
        }
    }

    fn write_first(&mut self, out: &mut Vec<u8>) {
        if let Some(first) = self.waiting.pop_front() {
            out.extend_from_slice(&first.recv().expect("a thread answers every job"));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.waiting.clear();
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// Waits for the next job; `None` when there will not be any.
fn next(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
