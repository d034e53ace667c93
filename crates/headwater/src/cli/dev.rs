//! `dev`: serves the project, and applies it again whenever a file of it changes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater::{DataFolder, Engine, Project, apply_project, read_registry};
use headwater_schema::Problem;

use super::serve::{Guarded, ServeArguments, open, serve};
use super::{Context, Failure, print};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Serves what the files say, now and later. Files that are wrong are told of; what is in force stays so.
pub fn run(context: &Context, arguments: &ServeArguments) -> Result<(), Failure> {
    let config = context.config()?;
    let guarded = Guarded::new(context, &config, arguments)?;
    let folder = context.data_folder(&config);
    let seen = fingerprint(context)?;
    match Project::load(&context.env, &context.folder) {
        Ok(project) => {
            let plan = apply_project(&context.env, &project, &folder)?;
            if !plan.is_empty() {
                print!("{plan}");
            }
        }
        Err(problems) => {
            let applied = read_registry(&context.env, &DataFolder::new(&folder))?;
            if applied.is_none() {
                return Err(problems.into());
            }
            print::problems(context, &problems);
            eprintln!("what was applied before stays in force");
        }
    }
    let engine = open(context, &config)?;
    let watched = engine.clone();
    serve(context, &config, guarded, engine, move |stop| {
        watch(context, &watched, seen, stop);
        drop(watched);
    })
}

fn watch(context: &Context, engine: &Arc<Engine>, mut seen: u64, stop: &AtomicBool) {
    println!("watching {}", context.folder.display());
    while !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(LOOK_EVERY);
        let Ok(now) = fingerprint(context) else {
            // A file may be gone for a moment while an editor saves it.
            continue;
        };
        if now != seen {
            seen = now;
            if let Err(problems) = apply_again(context, engine) {
                print::problems(context, &problems);
                eprintln!("what was applied before stays in force");
            }
        }
    }
}

fn apply_again(context: &Context, engine: &Engine) -> Result<(), Vec<Problem>> {
    let project = Project::load(&context.env, &context.folder)?;
    let plan = engine.apply(&project.documents, &project.catalog, None)?;
    if plan.is_empty() {
        println!("changed: nothing to apply (settings take effect at the next start)");
    } else {
        print!("{plan}");
        println!("Applied.");
    }
    Ok(())
}

/// A hash of every definition file.
fn fingerprint(context: &Context) -> Result<u64, Problem> {
    let mut hasher = DefaultHasher::new();
    for file in Project::files(&context.env, &context.folder)? {
        (file.file, file.text).hash(&mut hasher);
    }
    Ok(hasher.finish())
}
