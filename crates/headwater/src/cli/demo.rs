//! `demo flights`: a year of real flights, replayed into live features.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use headwater::{Engine, Project, apply_project, check_address};
use headwater_api::ServerOptions;
use headwater_api::backend::{EntityRequest, FeaturesRequest, KeyValue, Names};
use headwater_schema::time::{format_date, parse_timestamp};
use headwater_schema::{FactBatch, Micros, Problem, Value};
use indicatif::{ProgressBar, ProgressStyle};

use super::features::{reply_json, request_json, show};
use super::forecast::Forecast;
use super::replay::{Outcome, Progress, Recording, Watcher, replay};
use super::serve::{bind, close, runtime, stop_signals};
use super::{Context, Failure, print};

/// The contracts of the recordings, in the order that facts of equal event times keep.
const CONTRACTS: [&str; 6] = [
    "airport",
    "plane",
    "weather",
    "schedule",
    "departure",
    "arrival",
];
/// A file that says that the demo made the data folder and may empty it.
const MARKER: &str = "MADE_BY_DEMO";
const DAY: Micros = 86_400_000_000;

#[derive(Subcommand)]
pub enum DemoVerb {
    /// All flights out of New York in 2013.
    Flights(FlightsArguments),
}

#[derive(Args)]
pub struct FlightsArguments {
    /// End after the replay instead of serving on.
    #[arg(long)]
    exit: bool,
    /// Seconds of event time per second; as fast as it goes by default.
    #[arg(long)]
    speed: Option<f64>,
    /// Replay only what happened before this.
    #[arg(long)]
    until: Option<String>,
    /// Replay only. Otherwise every flight is predicted one hour before it is to leave, whether it arrives late, and
    /// the end tells how good that was.
    #[arg(long)]
    no_predict: bool,
    /// The address to serve on.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The folder of the example.
    #[arg(long)]
    example: Option<PathBuf>,
    /// The plane to show.
    #[arg(long, default_value = "N14228")]
    plane: String,
    /// The airport to show.
    #[arg(long, default_value = "EWR")]
    origin: String,
    /// The moment to show them at.
    #[arg(long, default_value = "2013-07-22T22:00:00Z")]
    at: String,
}

/// Runs the demo.
pub fn run(context: &Context, arguments: &FlightsArguments) -> Result<(), Failure> {
    let example = example_folder(context, arguments)?;
    let data = context
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from(".headwater/demo-flights"));
    empty_data_folder(context, &data)?;
    let project = Project::load(&context.env, &example)?;
    let plan = apply_project(&context.env, &project, &data)?;
    println!(
        "Applied {} definitions of {}.",
        plan.items.len(),
        example.display()
    );
    let engine = Engine::open(context.env.clone(), &project.config, &data, |_, _| {})?;
    let engine = Arc::new(engine);
    let runtime = runtime()?;
    let address = arguments.listen.unwrap_or(project.config.spec.listen);
    let options = ServerOptions::open(project.config.spec.limits.clone());
    check_address(address, &options.auth)?;
    let server = bind(&runtime, address, engine.clone(), options)?;
    let address = server.address();
    println!("Listening on http://{address}.");
    let asked = stop_signals()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = runtime.spawn(server.run(async {
        tokio::select! {
            _ = stopped => {}
            _ = asked => {}
        }
    }));
    let (outcome, forecast) = replay_year(context, arguments, &engine, &example)?;
    summary(&engine, &outcome);
    if let Some(forecast) = forecast {
        forecast.summary();
    }
    show_known(&engine, arguments, address)?;
    if arguments.exit {
        drop(stop);
    } else {
        println!("\nServing on http://{address} until stopped (Ctrl-C).");
    }
    let served = runtime.block_on(serving);
    served.map_err(|e| Problem::internal("serve", "the server panicked").detail(e))?;
    drop(runtime);
    close(engine)
}

fn example_folder(context: &Context, arguments: &FlightsArguments) -> Result<PathBuf, Failure> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    let mut places = vec![PathBuf::from("examples/flights"), built_from];
    if let Some(given) = &arguments.example {
        places = vec![given.clone()];
    }
    let found = places
        .iter()
        .find(|p| context.env.files.exists(&p.join("data/departure.parquet")));
    match found {
        Some(found) => Ok(found.clone()),
        None => Err(
            Problem::user("no-example", "the example's folder isn't there")
                .detail(format!(
                    "looked in {}",
                    places
                        .iter()
                        .map(|p| p.display().to_string())
                        .collect::<Vec<_>>()
                        .join(", ")
                ))
                .hint("run it from the project's checkout, or name the folder with `--example`")
                .into(),
        ),
    }
}

/// The demo begins with no data. It empties only a folder that it made itself.
fn empty_data_folder(context: &Context, data: &Path) -> Result<(), Failure> {
    let files = &context.env.files;
    let failed = |e: headwater_env::FileError| {
        Problem::external("data-folder", "the data folder can't be prepared").detail(e)
    };
    let filled = files.exists(data) && !files.list(data).map_err(failed)?.is_empty();
    if filled && !files.exists(&data.join(MARKER)) {
        return Err(Problem::user(
            "data-folder-in-use",
            format!("{} holds something else", data.display()),
        )
        .hint("name an empty folder with `--data`")
        .into());
    }
    if filled {
        // Another demo that still runs must not lose its data.
        drop(headwater::DataFolder::new(data).lock(&context.env)?);
        files.remove_dir_all(data).map_err(failed)?;
    }
    files.create_dir_all(data).map_err(failed)?;
    files
        .write_atomic(
            &data.join(MARKER),
            b"`headwater demo` made this folder and empties it.\n",
        )
        .map_err(failed)?;
    Ok(())
}

fn replay_year<'a>(
    context: &'a Context,
    arguments: &FlightsArguments,
    engine: &'a Engine,
    example: &Path,
) -> Result<(Outcome, Option<Forecast<'a>>), Failure> {
    let mut recordings = Vec::with_capacity(CONTRACTS.len());
    for contract in CONTRACTS {
        let file = example.join("data").join(format!("{contract}.parquet"));
        recordings.push(Recording::read(&context.env, engine, contract, &file)?);
    }
    let counts: Vec<String> = recordings
        .iter()
        .map(|r| format!("{} {}", print::thousands(r.len() as u64), r.contract))
        .collect();
    println!("Replaying {} facts.", counts.join(", "));
    let until = arguments
        .until
        .as_deref()
        .map(super::facts::time)
        .transpose()?;
    let schedule = recordings.iter().find(|r| *r.contract == *"schedule");
    let forecast = schedule
        .filter(|_| !arguments.no_predict)
        .map(|schedule| Forecast::new(&context.env, engine, example, schedule.facts()));
    let mut watching = Watching {
        shown: Shown::new(context),
        forecast: forecast.transpose()?,
    };
    let outcome = replay(
        &context.env,
        engine,
        &mut recordings,
        until,
        arguments.speed,
        &mut watching,
    );
    watching.shown.bar.finish_and_clear();
    Ok((outcome?, watching.forecast))
}

/// Who looks at the year while it is replayed.
struct Watching<'a> {
    shown: Shown,
    forecast: Option<Forecast<'a>>,
}

impl Watcher for Watching<'_> {
    fn reads(&self) -> bool {
        self.forecast.is_some()
    }

    fn slice(&mut self, progress: Progress, slice: &[FactBatch]) -> Result<(), Problem> {
        if let Some(forecast) = &mut self.forecast {
            forecast.predict_until(progress.event_time)?;
            for arrivals in slice.iter().filter(|b| *b.contract == *"arrival") {
                forecast.arrived(arrivals)?;
            }
        }
        self.shown.update(progress, self.forecast.as_ref());
        Ok(())
    }
}

/// A bar on a terminal, a line per month of event time elsewhere.
struct Shown {
    bar: ProgressBar,
    hidden: bool,
    env: headwater::Env,
    start: u64,
    month: String,
}

impl Shown {
    fn new(context: &Context) -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} facts, {per_sec}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self {
            hidden: bar.is_hidden(),
            bar,
            env: context.env.clone(),
            start: context.env.clock.monotonic_nanos(),
            month: String::new(),
        }
    }

    fn update(&mut self, progress: Progress, forecast: Option<&Forecast<'_>>) {
        let day = i32::try_from(progress.event_time.div_euclid(DAY)).unwrap_or(0);
        let date = format_date(day);
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.facts);
        let month = date.get(..7).unwrap_or_default().to_owned();
        if self.hidden && month != self.month {
            let seconds = (self.env.clock.monotonic_nanos() - self.start) as f64 / 1e9;
            let rate = progress.facts as f64 / seconds.max(1e-9);
            let facts = print::thousands(progress.facts);
            match forecast {
                None => println!(
                    "  {month}: {facts} facts, {} facts/s",
                    print::thousands(rate as u64)
                ),
                Some(forecast) => println!("  {month}: {facts} facts; {}", forecast.so_far()),
            }
            self.month = month;
        }
        self.bar.set_message(date);
    }
}

fn summary(engine: &Engine, outcome: &Outcome) {
    let rate = outcome.facts as f64 / outcome.seconds.max(1e-9);
    println!(
        "{} facts in {:.2} s: {} facts/s, each durable before it was acknowledged.",
        print::thousands(outcome.facts),
        outcome.seconds,
        print::thousands(rate as u64)
    );
    let at = |share: f64| {
        let last = outcome.fresh_ms.len().saturating_sub(1);
        outcome
            .fresh_ms
            .get((last as f64 * share) as usize)
            .copied()
            .unwrap_or(0.0)
    };
    println!(
        "Freshness, from handing a batch over to reading it: {:.1} ms in the median, {:.1} ms for 99 of 100.",
        at(0.5),
        at(0.99)
    );
    let stats = engine.facts_log().stats();
    println!(
        "The log takes {:.1} bytes a fact; {} entities are in memory.",
        stats.bytes as f64 / stats.last_sequence.max(1) as f64,
        print::thousands(
            engine
                .processor_stats()
                .views
                .iter()
                .map(|v| v.entities_in_memory)
                .sum()
        )
    );
}

fn show_known(
    engine: &Engine,
    arguments: &FlightsArguments,
    address: SocketAddr,
) -> Result<(), Failure> {
    let at = parse_timestamp(&arguments.at, None).map_err(|e| {
        Problem::user("invalid-time", format!("`{}` is no time", arguments.at)).detail(e)
    })?;
    let known = [
        ("plane", &arguments.plane, "plane_context"),
        ("origin", &arguments.origin, "origin_context"),
    ];
    for (entity, key, set) in known {
        let request = FeaturesRequest {
            names: Names::Set(set.into()),
            entities: vec![EntityRequest::from([(
                entity.to_owned(),
                KeyValue::Scalar(Value::string(key)),
            )])],
            as_of: Some(at),
            known_at: None,
            context: Vec::new(),
            inclusive: true,
            lenient: false,
        };
        println!("\nWhat was known of {entity} {key} at {}:", arguments.at);
        show(&reply_json(&engine.features(&request)?));
        println!(
            "The same over HTTP:\n  curl -s http://{address}/v1/features -d '{}'",
            request_json(&request)
        );
    }
    Ok(())
}
