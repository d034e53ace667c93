//! `serve`: the engine behind HTTP, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use headwater::tls_files::TlsFiles;
use headwater::{Config, Engine, KeyFile, authorizer, check_address, keys};
use headwater_api::{AuditEvent, Backend, Server, ServerOptions, Tls};
use headwater_schema::Problem;
use tokio::runtime::Runtime;

use super::{Context, Failure, print};

#[derive(Args)]
pub struct ServeArguments {
    /// The address to listen on, instead of the project's.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The address to listen on for gRPC, instead of the project's.
    #[arg(long)]
    grpc_listen: Option<SocketAddr>,
}

/// How often the files of keys and certificates are read again.
const RELOAD: Duration = Duration::from_secs(1);

/// Serves the project.
pub fn run(context: &Context, arguments: &ServeArguments) -> Result<(), Failure> {
    let config = context.config()?;
    // First what takes no time: a log of years is read only for a server that may listen.
    let guarded = Guarded::new(context, &config, arguments)?;
    let engine = open(context, &config)?;
    serve(context, &config, guarded, engine, |_| {})
}

/// Serves an engine until the process is asked to stop. `beside` runs on a thread of its own, and ends
/// once what it is given says so.
pub fn serve(
    context: &Context,
    config: &Config,
    guarded: Guarded,
    engine: Arc<Engine>,
    beside: impl FnOnce(&AtomicBool) + Send,
) -> Result<(), Failure> {
    let folder = context.data_folder(config);
    let stop = stop_signals()?;
    let runtime = runtime()?;
    let options = guarded.options(config, context.env.random.next_u64());
    let mut server = bind(&runtime, guarded.http, engine.clone(), options)?;
    runtime.block_on(listen_grpc(&mut server, guarded.grpc, guarded.http))?;
    let grpc = server.grpc_url().unwrap_or_default();
    // In one piece, so that whoever reads the first line only doesn't stop the second.
    let told = format!(
        "listening on {}\nlistening for gRPC on {grpc}\n",
        server.url()
    );
    print!("{told}");
    let start = AuditEvent::new(super::ACTOR, "serve.start", &server.url(), "ok");
    context.audit(config).append(&start)?;
    runtime.spawn(guarded.watch(config.clone()));
    let over = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&over));
        let answered = runtime.block_on(server.run(async { drop(stop.await) }));
        over.store(true, Ordering::Release);
        beside.thread().unpark();
        answered
    });
    if !answered {
        let waited = config.spec.limits.drain_ms_max;
        tracing::warn!("some requests weren't answered within {waited} ms (`limits.drain_ms_max`)");
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("stopping: writing a checkpoint");
    close(engine)?;
    let result = if answered { "ok" } else { "requests given up" };
    let stop = AuditEvent::new(
        super::ACTOR,
        "serve.stop",
        &folder.display().to_string(),
        result,
    );
    Ok(context.audit(config).append(&stop)?)
}

/// Listens for gRPC on the address that was named; else on the port after HTTP's, or on a free one
/// where that is taken.
async fn listen_grpc(
    server: &mut Server,
    named: Option<SocketAddr>,
    http: SocketAddr,
) -> Result<(), Problem> {
    if let Some(named) = named {
        return server.listen_grpc(named).await;
    }
    let port = match http.port() {
        0 => 0,
        port => port.checked_add(1).unwrap_or_default(),
    };
    let next = SocketAddr::new(http.ip(), port);
    if server.listen_grpc(next).await.is_ok() {
        return Ok(());
    }
    server.listen_grpc(SocketAddr::new(http.ip(), 0)).await?;
    tracing::warn!("{next} is taken, so gRPC listens on another port (set `grpc_listen`)");
    Ok(())
}

/// The engine over the data folder; says how far it has come where that takes a while.
pub fn open(context: &Context, config: &Config) -> Result<Arc<Engine>, Failure> {
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
    let folder = context.data_folder(config);
    let engine = Engine::open(context.env.clone(), config, &folder, progress)?;
    print::repairs(engine.report());
    Ok(Arc::new(engine))
}

/// Addresses, and what guards them: keys and a certificate, and the files they are read from.
pub struct Guarded {
    http: SocketAddr,
    /// None where none was named: it is the port after HTTP's, or a free one.
    grpc: Option<SocketAddr>,
    keys: KeyFile,
    auth: Arc<headwater_api::Authorizer>,
    tls: Option<(TlsFiles, Arc<Tls>)>,
}

impl Guarded {
    /// Refuses an address that others reach without keys; warns of one without TLS.
    pub fn new(
        context: &Context,
        config: &Config,
        arguments: &ServeArguments,
    ) -> Result<Self, Failure> {
        let http = arguments.listen.unwrap_or(config.spec.listen);
        let grpc = arguments.grpc_listen.or(config.spec.grpc_listen);
        let data = context.data_folder(config);
        let keys = KeyFile::new(context.env.clone(), config, &context.folder, &data);
        let auth = authorizer(&keys, config, Arc::new(context.audit(config)))?;
        let addresses = || [Some(http), grpc].into_iter().flatten();
        for address in addresses() {
            check_address(address, &auth)?;
        }
        let files = TlsFiles::new(context.env.clone(), config, &context.folder);
        let tls = match files {
            Some(files) => {
                let tls = Arc::new(files.load()?);
                Some((files, tls))
            }
            None => None,
        };
        let open = addresses().filter(|a| tls.is_none() && !keys::is_loopback(a.ip()));
        for address in open {
            eprintln!(
                "warning: {address} is open to others without TLS: keys and facts can be read on their way (set `tls`)"
            );
        }
        Ok(Self {
            http,
            grpc,
            keys,
            auth,
            tls,
        })
    }

    fn options(&self, config: &Config, instance: u64) -> ServerOptions {
        ServerOptions {
            limits: config.spec.limits.clone(),
            auth: self.auth.clone(),
            tls: self.tls.as_ref().map(|(_, tls)| tls.clone()),
            instance,
        }
    }

    /// Puts keys and certificates in force, and out of it, as their files say.
    async fn watch(self, config: Config) {
        let this = Arc::new((self, config));
        let mut told = false;
        loop {
            tokio::time::sleep(RELOAD).await;
            let this = this.clone();
            let read = move || this.0.reload(&this.1);
            match tokio::task::spawn_blocking(read).await {
                Ok(Err(problem)) if !told => {
                    tracing::error!(%problem, "keys and certificates stay as they were");
                    told = true;
                }
                Ok(Ok(())) => told = false,
                _ => {}
            }
        }
    }

    fn reload(&self, config: &Config) -> Result<(), Problem> {
        self.keys.reload(config, &self.auth)?;
        if let Some((files, tls)) = &self.tls
            && files.reload(tls)?
        {
            tracing::info!("the certificate was read again");
        }
        Ok(())
    }
}

/// The threads that serve.
pub fn runtime() -> Result<Runtime, Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("headwater-http")
        .build()
        .map_err(no_thread)
}

fn no_thread(error: std::io::Error) -> Problem {
    Problem::external("thread", "the server's threads can't be started").detail(error)
}

/// A server of the engine that listens already.
pub fn bind(
    runtime: &Runtime,
    address: SocketAddr,
    engine: Arc<Engine>,
    options: ServerOptions,
) -> Result<Server, Problem> {
    let backend: Arc<dyn Backend> = engine;
    runtime.block_on(Server::bind(address, backend, options))
}

/// Closes the engine in order once nobody else holds it.
pub fn close(engine: Arc<Engine>) -> Result<(), Failure> {
    match Arc::try_unwrap(engine) {
        Ok(engine) => Ok(engine.close()?),
        // Someone still reads; what is durable is durable, and the next start replays.
        Err(engine) => Ok(engine.checkpoint()?),
    }
}

/// Ready once the process is asked to stop. Asked again, the process ends at once, whatever it is at:
/// what was acknowledged is durable.
pub fn stop_signals() -> Result<tokio::sync::oneshot::Receiver<()>, Problem> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_thread)?;
    let signals = runtime
        .block_on(async { Signals::new() })
        .map_err(no_thread)?;
    let watch = move || {
        runtime.block_on(async {
            let mut signals = signals;
            signals.next().await;
            let _ = stop.send(());
            signals.next().await;
            eprintln!("stopping at once");
            std::process::exit(STOPPED_AT_ONCE);
        });
    };
    std::thread::Builder::new()
        .name("headwater-signals".into())
        .spawn(watch)
        .map_err(no_thread)?;
    Ok(stopped)
}

/// The exit code of a process that was asked twice to stop.
const STOPPED_AT_ONCE: i32 = 130;

/// Requests to stop: SIGTERM, and Ctrl-C.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
