//! What does a device's slow part, in the place that the user has chosen.

use std::sync::Arc;

use bottom_half::{Cpu, QueueKind, Softirq, System, Tasklet, Turn, Vector, Work};

/// Where a slow part runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// From its own softirq vector, on the CPU that asks for it.
    Softirq,
    /// In a tasklet on one CPU, whoever asks.
    Tasklet,
    /// In an item of a work queue of its own.
    WorkQueue,
}

/// A slow part that can be asked for. Clones are of the same.
#[derive(Clone)]
pub enum Runner {
    /// Runs on the CPU that asks.
    Softirq(Arc<Tasklet>),
    /// Runs on this CPU.
    Tasklet(Arc<Tasklet>, Arc<Cpu>),
    /// Runs in a worker.
    Work(Arc<Work>),
}

impl Runner {
    /// `body` in its `home`: from `vector`, or in a tasklet on `cpu`, or in a work queue called `name`. It must not block. When it
    /// gives [`Turn::Again`] it runs again after others have had their turn.
    pub fn new(
        home: Home,
        (system, cpu): (&System, &Arc<Cpu>),
        vector: Vector,
        name: &str,
        body: impl Fn() -> Turn + Send + Sync + 'static,
    ) -> Self {
        let tasklet = |vector, body: Box<dyn Fn() -> Turn + Send + Sync>| {
            Arc::new(Tasklet::on_vector(system, cpu, vector, move |_: &Softirq<'_>| body()))
        };
        match home {
            Home::Softirq => Self::Softirq(tasklet(vector, Box::new(body))),
            Home::Tasklet => Self::Tasklet(tasklet(Vector::Tasklet, Box::new(body)), Arc::clone(cpu)),
            Home::WorkQueue => Self::Work(Arc::new(system.queue(name, QueueKind::Ordered).work(move |process| {
                if body() == Turn::Again {
                    let _ = process.requeue();
                }
            }))),
        }
    }

    /// Has it run soon; merged into a run that has yet to start. Never blocks.
    pub fn schedule(&self) {
        match self {
            Self::Softirq(tasklet) => _ = tasklet.schedule(),
            Self::Tasklet(tasklet, cpu) => _ = tasklet.schedule_on(cpu),
            Self::Work(work) => _ = work.queue(),
        }
    }
}
