//! What is answered where a model can't answer, or not in time: what its declaration says, in its order.

use std::sync::Arc;

use headwater_features::{Constant, ConstantOutput, Fallback};
use headwater_models::ModelContract;
use headwater_models::repository::OutputRecord;
use headwater_schema::{Micros, Problem};

use crate::last_good::row_keys;
use crate::loaded::LIVE;
use crate::predict::{Scored, predict};
use crate::rows::{count, spell_out};
use crate::serving::{Core, Request};
use crate::{Degraded, InputRows, OutputRow};

/// What stands in for an answer.
pub(crate) enum StandIn {
    /// Another version's answer.
    Scored(Box<Scored>),
    Outputs(Vec<OutputRow>),
}

/// The first fallback that can be had; the problem where none can. Other versions are only asked while there
/// is `time`.
pub(crate) fn fallback(
    core: &Core,
    request: &Request,
    problem: &Problem,
    time: bool,
) -> Result<(StandIn, Degraded), Problem> {
    let degraded = |fallback| Degraded {
        reason: problem.code.to_owned(),
        detail: match problem.detail.is_empty() {
            true => problem.title.clone(),
            false => format!("{}: {}", problem.title, problem.detail),
        },
        fallback,
    };
    for declared in &request.model.fallbacks {
        match declared {
            Fallback::LastGood { age_max } => {
                if let Some(outputs) = last_good(core, request, *age_max) {
                    return Ok((StandIn::Outputs(outputs), degraded("last_good")));
                }
            }
            Fallback::Alias(alias) if time => {
                if let Ok(scored) = predict(core, request, Some(alias)) {
                    return Ok((StandIn::Scored(Box::new(scored)), degraded("alias")));
                }
            }
            Fallback::Alias(_) => {}
            Fallback::Constant(constant) => {
                let row = constant_row(constant, &outputs(core, request));
                let rows = vec![row; count(&request.asked.rows)];
                return Ok((StandIn::Outputs(rows), degraded("constant")));
            }
        }
    }
    Err(problem.clone())
}

fn last_good(core: &Core, request: &Request, age_max: Micros) -> Option<Vec<OutputRow>> {
    let InputRows::Entities {
        entities,
        context,
        candidates,
    } = &request.asked.rows
    else {
        return None;
    };
    let memory = core.served(&request.model.name).ok()?.last_good.clone();
    let since = core.env.clock.now().saturating_sub(age_max);
    let (entities, context) = spell_out(entities, context, candidates.as_ref()).ok()?;
    let keys = row_keys(&entities, &context);
    keys.map(|key| memory.get(key, since)).collect()
}

/// The outputs that the model has, as far as a version is known; of a model without versions, one.
fn outputs(core: &Core, request: &Request) -> Vec<OutputRecord> {
    let served = core.served(&request.model.name);
    let known = served.ok().and_then(|served| {
        let record = &served.record;
        let version = record.find(LIVE).ok().or(record.versions.last());
        version.map(|v| v.outputs.clone())
    });
    known.unwrap_or_else(|| {
        vec![OutputRecord {
            name: "value".to_owned(),
            width: 1,
        }]
    })
}

fn constant_row(constant: &Constant, outputs: &[OutputRecord]) -> OutputRow {
    match constant {
        Constant::Number(number) => {
            let same = |o: &OutputRecord| (Arc::from(o.name.as_str()), vec![*number; o.width]);
            outputs.iter().map(same).collect()
        }
        Constant::Named(named) => {
            let row = named.iter().map(|(name, numbers)| {
                let numbers = match numbers {
                    ConstantOutput::One(number) => vec![*number],
                    ConstantOutput::Many(numbers) => numbers.clone(),
                };
                (Arc::from(name.as_str()), numbers)
            });
            row.collect()
        }
    }
}

/// Refuses a model whose outputs aren't those that its declared constants stand in for.
pub(crate) fn check_constants(
    fallbacks: &[Fallback],
    contract: &ModelContract,
) -> Result<(), Problem> {
    for fallback in fallbacks {
        let Fallback::Constant(Constant::Named(named)) = fallback else {
            continue;
        };
        let fits = named.len() == contract.outputs.len()
            && contract.outputs.iter().all(|o| match named.get(&o.name) {
                Some(ConstantOutput::One(_)) => o.width == 1,
                Some(ConstantOutput::Many(numbers)) => o.width == numbers.len(),
                None => false,
            });
        if !fits {
            let has = contract.outputs.iter();
            let has: Vec<String> = has.map(|o| format!("{} ({})", o.name, o.width)).collect();
            return Err(Problem::user(
                "model-outputs",
                "the model's fallback isn't made of its outputs",
            )
            .detail(format!("the file answers {}", has.join(", ")))
            .hint("name each output in `fallback`, with as many numbers as it has"));
        }
    }
    Ok(())
}
