//! The server under load: this program again, as a process of its own, on a core of its own where asked.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use headwater::Config;
use headwater_api::{Backend, Server, ServerOptions};
use headwater_schema::Problem;

use crate::{failed, machine, shop};

const FOLDER: &str = "HEADWATER_BENCH_FOLDER";

/// A running server; killed when it is dropped.
pub struct ServerProcess {
    child: Child,
    pub address: SocketAddr,
    pub grpc: SocketAddr,
}

impl ServerProcess {
    /// Serves the project in `folder`, on one core or on all.
    pub fn start(folder: &Path, core: Option<usize>) -> Result<Self, Problem> {
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("serve").env(FOLDER, folder);
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| failed("the server is mute"))?;
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .map_err(failed)?;
        let (http, grpc) = line
            .trim()
            .split_once(' ')
            .ok_or_else(|| failed("the server says no addresses"))?;
        Ok(Self {
            child,
            address: http.parse().map_err(failed)?,
            grpc: grpc.parse().map_err(failed)?,
        })
    }

    /// Bytes of memory that the server has resident.
    pub fn resident_bytes(&self) -> u64 {
        machine::resident_bytes(&self.child.id().to_string())
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<(), Problem> {
        self.child.kill().map_err(failed)?;
        self.child.wait().map_err(failed).map(drop)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the server until it is killed. Settings come from the project's `headwater.yaml`.
pub fn serve(core: Option<usize>) -> Result<(), Problem> {
    if let Some(core) = core {
        machine::pin(&[core])?;
    }
    let folder = std::env::var_os(FOLDER).ok_or_else(|| failed("no folder is named"))?;
    let env = headwater::Env::real();
    let config: Config = headwater::Project::config(&env, Path::new(&folder))?;
    let engine = Arc::new(shop::open(Path::new(&folder), &config)?);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if core.is_some() {
        builder.worker_threads(1);
    }
    let runtime = builder.enable_all().build().map_err(failed)?;
    let backend: Arc<dyn Backend> = engine;
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut server = runtime.block_on(Server::bind(
        address,
        backend,
        ServerOptions::open(config.spec.limits),
    ))?;
    runtime.block_on(server.listen_grpc(address))?;
    let grpc = server.grpc_url().unwrap_or_default();
    println!(
        "{} {}",
        server.address(),
        grpc.trim_start_matches("http://")
    );
    std::io::stdout().flush().map_err(failed)?;
    runtime.block_on(server.run(std::future::pending()));
    Ok(())
}
