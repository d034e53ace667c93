//! `serve`: the engine behind HTTP, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use headwater::{Config, Engine};
use headwater_api::{Backend, Server};
use headwater_schema::Problem;
use tokio::runtime::Runtime;

use super::{Context, Failure, print};

#[derive(Args)]
pub struct ServeArguments {
    /// The address to listen on, instead of the project's.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

/// Serves the project.
pub fn run(context: &Context, arguments: &ServeArguments) -> Result<(), Failure> {
    let config = context.config()?;
    let folder = context.data_folder(&config);
    let mut told = 0;
    let progress = |done: u64, all: u64| {
        const STEP: u64 = 1_000_000;
        if done / STEP > told {
            told = done / STEP;
            eprintln!(
                "reading the log again: {} of {} facts",
                print::thousands(done),
                print::thousands(all)
            );
        }
    };
    let engine = Arc::new(Engine::open(
        context.env.clone(),
        &config,
        &folder,
        progress,
    )?);
    print::repairs(engine.report());
    let runtime = runtime()?;
    let address = arguments.listen.unwrap_or(config.spec.listen);
    let server = bind(&runtime, &config, address, engine.clone())?;
    println!("listening on http://{}", server.address());
    runtime.block_on(server.run(stop_signal()))?;
    drop(runtime);
    eprintln!("stopping: writing a checkpoint");
    close(engine)
}

/// The threads that serve.
pub fn runtime() -> Result<Runtime, Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("headwater-http")
        .build()
        .map_err(|e| Problem::external("thread", "the server's threads can't be started").detail(e))
}

/// A server of the engine that listens already.
pub fn bind(
    runtime: &Runtime,
    config: &Config,
    address: SocketAddr,
    engine: Arc<Engine>,
) -> Result<Server, Problem> {
    let backend: Arc<dyn Backend> = engine;
    let limits = config.spec.limits.clone();
    runtime.block_on(Server::bind(address, backend, limits))
}

/// Closes the engine in order once nobody else holds it.
pub fn close(engine: Arc<Engine>) -> Result<(), Failure> {
    match Arc::try_unwrap(engine) {
        Ok(engine) => Ok(engine.close()?),
        // Someone still reads; what is durable is durable, and the next start replays.
        Err(engine) => Ok(engine.checkpoint()?),
    }
}

/// Ready once the process is asked to stop.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
