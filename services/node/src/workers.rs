//! The threads that answer requests: each has a runtime, a listener and a way into the mesh of its own, so that no request
//! ever hops between threads.

use std::{sync::Arc, thread};

use anyhow::Context;
use tokio::{net::TcpListener, runtime, sync::oneshot};

use crate::{
    app::{App, HttpWorker},
    listener::Listeners,
    serve::serve,
    settings::HttpSettings,
    shutdown::ShutdownPhase,
};

/// The running threads.
pub struct Workers {
    drained: Vec<oneshot::Receiver<()>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread per listener and waits until all of them serve.
    ///
    /// # Errors
    /// If a thread, its runtime or its way into the mesh cannot be made.
    pub async fn start(app: &Arc<App>, settings: HttpSettings, listeners: Listeners) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        let mut workers = Self { drained: Vec::new(), threads: Vec::new() };
        for (index, socket) in listeners.into_sockets().into_iter().enumerate() {
            let (app, settings) = (Arc::clone(app), Arc::clone(&settings));
            let (started, is_started) = oneshot::channel();
            let (drained, is_drained) = oneshot::channel();
            let thread = thread::Builder::new()
                .name(format!("http-{index}"))
                .spawn(move || run(&app, &settings, socket, started, drained))
                .context("cannot start a thread")?;
            is_started.await.with_context(|| format!("worker {index} died at its start"))??;
            workers.threads.push(thread);
            workers.drained.push(is_drained);
        }
        Ok(workers)
    }

    /// Waits until all requests under way are answered, or given up, or a thread has died.
    pub async fn drained(&mut self) {
        for worker in &mut self.drained {
            // An error means that the thread died, which drains it as well.
            let _ = worker.await;
        }
    }

    /// Waits until all threads have ended.
    pub fn join(self) {
        for thread in self.threads {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(
    app: &Arc<App>,
    settings: &HttpSettings,
    socket: std::net::TcpListener,
    started: oneshot::Sender<anyhow::Result<()>>,
    drained: oneshot::Sender<()>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(error).context("cannot make a runtime"));
            return;
        }
    };
    runtime.block_on(async {
        let opened = async {
            let mesh = app.node.add_worker()?;
            anyhow::Ok((TcpListener::from_std(socket)?, mesh))
        };
        // Sends fail only if the main thread is gone, and the process with it.
        match opened.await {
            Ok((listener, mesh)) => {
                let _ = started.send(Ok(()));
                serve(listener, HttpWorker::new(app, mesh), settings).await;
                let _ = drained.send(());
                // The mesh needs this thread's connections until it has left.
                app.shutdown.reached(ShutdownPhase::Stopped).await;
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    });
}
