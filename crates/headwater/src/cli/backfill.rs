//! `backfill`: what is being filled from the facts, how far it is, and views made again on demand.

use std::time::Duration;

use clap::Args;
use headwater_api::AuditEvent;
use headwater_api::backend::{Backend, BackfillRequest, RegistryQuery};
use headwater_features::DefinitionKind;
use headwater_schema::Problem;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use super::{Context, Failure, print, serve};

/// How often it is looked how far the views are.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks between two lines, where no terminal shows a bar.
const LOOKS_PER_LINE: u32 = 10;

#[derive(Args)]
pub struct BackfillArguments {
    /// Make this view again from the facts, though its definition is what it was. May be given several times.
    #[arg(long = "view")]
    views: Vec<String>,
    /// With `--server`: say how far the views are, and don't wait until they are filled.
    #[arg(long, requires = "server")]
    no_wait: bool,
}

/// A view that is being filled, as the registry tells of it.
pub struct Fill {
    pub view: String,
    pub done: u64,
    pub total: u64,
    seconds_left: Option<f64>,
    pub problem: Option<String>,
}

impl Fill {
    /// The views that are being filled, of a list of views of the registry.
    pub fn all(views: &Json) -> Vec<Self> {
        let views = views.as_array().into_iter().flatten();
        let filling = views.filter(|view| view["status"] == "backfilling");
        let fill = filling.map(|view| {
            let progress = &view["filling"];
            Self {
                view: view["name"].as_str().unwrap_or_default().to_owned(),
                done: progress["facts_done"].as_u64().unwrap_or(0),
                total: progress["facts_total"].as_u64().unwrap_or(0),
                seconds_left: progress["seconds_left"].as_f64(),
                problem: progress["problem"].as_str().map(str::to_owned),
            }
        });
        fill.collect()
    }

    /// How far it is, in words.
    pub fn told(&self) -> String {
        let left = self.seconds_left.map(|s| format!(", about {s:.0} s left"));
        format!(
            "{}: {} of {} facts{}",
            self.view,
            print::thousands(self.done),
            print::thousands(self.total),
            left.unwrap_or_default()
        )
    }
}

/// Makes views again where some are named, shows how far everything is that is being filled, and waits
/// until it is.
pub fn run(context: &Context, arguments: &BackfillArguments) -> Result<(), Failure> {
    match context.remote()? {
        Some(remote) => {
            if !arguments.views.is_empty() {
                let body = json!(BackfillRequest {
                    views: arguments.views.clone(),
                });
                let path = "/v1/registry/backfill";
                remote.post(path, "application/json", body.to_string().as_bytes())?;
            }
            let look = || remote.get("/v1/registry/views", &[]);
            show(context, arguments, look)
        }
        None => here(context, arguments),
    }
}

fn here(context: &Context, arguments: &BackfillArguments) -> Result<(), Failure> {
    let config = context.config()?;
    let engine = serve::open(context, &config)?;
    if !arguments.views.is_empty() {
        engine.backfill(&arguments.views)?;
        let target = arguments.views.join(", ");
        let event = AuditEvent::new(super::ACTOR, "views.backfill", &target, "ok");
        context.audit(&config).append(&event)?;
    }
    let look = || Backend::registry(engine.as_ref(), &RegistryQuery::Kind(DefinitionKind::View));
    let shown = show(context, arguments, look);
    serve::close(engine)?;
    shown
}

/// Shows how far views are until none is being filled, or one can't be.
fn show(
    context: &Context,
    arguments: &BackfillArguments,
    look: impl Fn() -> Result<Json, Problem>,
) -> Result<(), Failure> {
    let mut bar = Bar::new(context.json);
    let views = loop {
        let views = look()?;
        let fills = Fill::all(&views);
        if fills.is_empty() || arguments.no_wait {
            break views;
        }
        if let Some(fill) = fills.iter().find(|fill| fill.problem.is_some()) {
            bar.finish();
            return Err(stuck(fill).into());
        }
        bar.update(&fills);
        std::thread::park_timeout(LOOK_EVERY);
    };
    bar.finish();
    tell(context, &views);
    Ok(())
}

fn stuck(fill: &Fill) -> Problem {
    Problem::external("fill", format!("the view `{}` can't be filled", fill.view))
        .detail(fill.problem.clone().unwrap_or_default())
        .hint("it is tried again as long as a server runs; nothing is lost")
        .retryable()
}

/// Says of each view whether it serves, or how far it is.
fn tell(context: &Context, views: &Json) {
    if context.json {
        let views = views.as_array().into_iter().flatten();
        let told = views
            .map(|v| json!({"view": v["name"], "status": v["status"], "filling": v["filling"]}));
        return print::json(&json!({"views": told.collect::<Vec<_>>()}));
    }
    let fills = Fill::all(views);
    if fills.is_empty() {
        println!("Every view is filled.");
    }
    for fill in fills {
        println!("{}", fill.told());
    }
}

/// A bar on a terminal, a line every now and then elsewhere; nothing where JSON was asked for.
struct Bar {
    bar: ProgressBar,
    quiet: bool,
    looks: u32,
}

impl Bar {
    fn new(quiet: bool) -> Self {
        let bar = match quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(0),
        };
        if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} facts") {
            bar.set_style(style);
        }
        Self {
            bar,
            quiet,
            looks: 0,
        }
    }

    fn update(&mut self, fills: &[Fill]) {
        // They are filled side by side; the one that is least far says how long it takes.
        let Some(last) = fills
            .iter()
            .max_by_key(|fill| fill.total - fill.done.min(fill.total))
        else {
            return;
        };
        self.bar.set_length(last.total);
        self.bar.set_position(last.done);
        self.bar.set_message(match fills {
            [fill] => fill.view.clone(),
            fills => format!("{} views", fills.len()),
        });
        if self.bar.is_hidden() && !self.quiet && self.looks.is_multiple_of(LOOKS_PER_LINE) {
            fills.iter().for_each(|fill| eprintln!("{}", fill.told()));
        }
        self.looks += 1;
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
