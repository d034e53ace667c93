//! A plan as a person reads it.

use std::fmt;

use headwater_schema::{human_bytes, human_seconds, thousands};

use super::{Action, Plan, PlanItem};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "Nothing to do: what is applied is what is defined.");
        }
        for item in &self.items {
            show_item(f, item)?;
        }
        if !self.affected.is_empty() {
            writeln!(f, "\nAffected downstream:")?;
        }
        for affected in &self.affected {
            write!(f, "  ! {} {}", affected.kind, affected.name)?;
            show_owner(f, affected.owner.as_deref())?;
            writeln!(f, " reads {}", affected.because.join(", "))?;
        }
        let count = |action| self.items.iter().filter(|i| i.action == action).count();
        writeln!(
            f,
            "\nPlan: {} to add, {} to change, {} to compute again, {} to drop.",
            count(Action::Add),
            count(Action::Change),
            count(Action::Recompute),
            count(Action::Drop)
        )?;
        if self.cost.facts_read > 0 {
            writeln!(
                f,
                "Cost: the log's {} facts are read once, about {}{}; at most {} of state.",
                thousands(self.cost.facts_read),
                human_seconds(self.cost.seconds),
                if self.cost.measured { "" } else { " (a guess)" },
                human_bytes(self.cost.state_bytes_max),
            )?;
        }
        Ok(())
    }
}

fn show_item(f: &mut fmt::Formatter<'_>, item: &PlanItem) -> fmt::Result {
    let sign = match item.action {
        Action::Add => "+",
        Action::Change => "~",
        Action::Recompute => "↻",
        Action::Drop => "-",
    };
    write!(f, "  {sign} {} {}", item.kind, item.name)?;
    show_owner(f, item.owner.as_deref())?;
    writeln!(f)?;
    for detail in &item.details {
        writeln!(f, "      {detail}")?;
    }
    let Some(replay) = &item.replay else {
        return Ok(());
    };
    let verb = match item.action {
        Action::Recompute => "computed again",
        _ => "computed",
    };
    if replay.facts == 0 {
        return writeln!(f, "      there are no facts for it yet");
    }
    let contracts: Vec<String> = replay
        .contracts
        .iter()
        .map(|(contract, facts)| format!("{} of {contract}", thousands(*facts)))
        .collect();
    writeln!(f, "      {verb} from {} facts", contracts.join(" and "))
}

fn show_owner(f: &mut fmt::Formatter<'_>, owner: Option<&str>) -> fmt::Result {
    match owner {
        Some(owner) => write!(f, "  (owner: {owner})"),
        None => Ok(()),
    }
}
