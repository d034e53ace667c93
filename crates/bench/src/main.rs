//! `headwater-bench`: measures the whole, prints what it ran on, and how each figure came to be.
//!
//! Every run is bounded; servers listen on loopback only. Pieces of code are measured by the criterion
//! benches beside it.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that prints what it measured, with the real clock"
)]

mod client;
mod deadline;
mod edge;
mod flights;
mod grpc;
mod http;
mod ingest;
mod machine;
mod memory;
mod modes;
mod query;
mod recovery;
mod server;
mod serving;
mod shop;
mod streaming;
mod sweep;
mod trees;
mod view;
mod windows;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use headwater_schema::Problem;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Headwater.
#[derive(Parser)]
struct Arguments {
    /// What to measure; by default everything but edge, trees, serving, streaming and modes.
    #[command(subcommand)]
    what: Option<What>,
    /// Seconds of each load over HTTP.
    #[arg(long, default_value_t = 10, global = true)]
    seconds: u64,
    /// A Python that has what is compared with: DuckDB, lightgbm with numpy, mlserver with mlserver-lightgbm.
    #[arg(long, default_value = "python3", global = true)]
    python: String,
}

#[derive(Subcommand, Clone)]
enum What {
    /// One view keyed by tail number, one exact 24 h window, on one core.
    View,
    /// Random windows over one entity, in the shape of Chronon's aggregator test.
    Windows,
    /// Features of many moments in one pass over the facts, on one core.
    Sweep {
        /// A folder for the facts, the moments and what was found, as Parquet files.
        #[arg(long)]
        tables: Option<PathBuf>,
    },
    /// Tree models beside LightGBM and ONNX Runtime from Python.
    Trees,
    /// The whole flights project through a durable engine, on one core.
    Flights,
    /// Durable ingestion over HTTP: batches, and facts one by one.
    Ingest,
    /// Reads over HTTP, alone and while facts come in.
    Http,
    /// Predictions over HTTP and gRPC, beside MLServer from Python.
    Serving,
    /// Facts that a model scores as they arrive: into the log of predictions, and pushed to a subscriber.
    Streaming,
    /// Predictions that can't be made in time: more than fits, and a store that stands still or is gone.
    Deadline,
    /// A bundle opened by a process of its own: the example in C over the library for devices.
    Edge {
        /// The stripped library, such as target/edge/libheadwater_edge_c.so.
        #[arg(long)]
        library: PathBuf,
    },
    /// A million entities with ten windows; a state ten times its memory budget.
    Memory,
    /// One model in several modes over the same rows of the flights example, compared bit for bit.
    Modes {
        /// Rows that are asked for in each.
        #[arg(long, default_value_t = 1_000_000)]
        rows: usize,
    },
    /// SQL over the archive, beside DuckDB on the same files.
    Query,
    /// Serving again after SIGKILL.
    Recovery {
        /// Facts in the log.
        #[arg(long, default_value_t = 10_000_000)]
        facts: usize,
    },
    /// The server that the loads over HTTP measure.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        core: Option<usize>,
    },
}

fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    if let Some(What::Serve { core }) = &arguments.what {
        return server::serve(*core);
    }
    machine::print();
    let every = [
        What::View,
        What::Windows,
        What::Sweep { tables: None },
        What::Flights,
        What::Ingest,
        What::Http,
        What::Deadline,
        What::Memory,
        What::Query,
        What::Recovery { facts: 10_000_000 },
    ];
    let chosen = arguments.what.map_or(every.to_vec(), |what| vec![what]);
    for what in chosen {
        match what {
            What::View => view::measure()?,
            What::Windows => windows::measure()?,
            What::Sweep { tables } => sweep::measure(tables.as_deref())?,
            What::Trees => trees::measure(&arguments.python)?,
            What::Flights => flights::measure()?,
            What::Ingest => ingest::measure(arguments.seconds)?,
            What::Http => http::measure(arguments.seconds)?,
            What::Serving => serving::measure(arguments.seconds, &arguments.python)?,
            What::Streaming => streaming::measure(arguments.seconds, &arguments.python)?,
            What::Deadline => deadline::measure(arguments.seconds)?,
            What::Edge { library } => edge::measure(&library, &arguments.python)?,
            What::Memory => memory::measure()?,
            What::Modes { rows } => modes::measure(rows)?,
            What::Query => query::measure(&arguments.python)?,
            What::Recovery { facts } => recovery::measure(facts)?,
            What::Serve { .. } => {}
        }
    }
    Ok(())
}

/// A failure of the bench itself.
fn failed(error: impl std::fmt::Display) -> Problem {
    Problem::external("bench", "the bench can't run").detail(error)
}
