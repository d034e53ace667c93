//! What a feature means, as a hash: it changes when the same facts may give another value, and not when a
//! description, an owner or a neighbour changes. Models are held to the meanings that they were trained on.

use std::fmt::Write;

use crate::catalog::{CompiledSource, CompiledView, FeatureKind, hash};
use crate::set::{FeatureSet, Place};
use crate::{Expression, FeatureRef};

/// The meaning of a feature of a view: 16 hexadecimal digits of XXH3.
pub fn feature_meaning(feature: &FeatureRef) -> String {
    hash(&feature_text(&feature.view, feature.index))
}

impl FeatureSet {
    /// The meaning of one value of the set's rows, or of a field of its context.
    pub fn meaning(&self, place: Place) -> String {
        match place {
            Place::Value(index) => match self.features.get(index) {
                Some(feature) => feature_meaning(feature),
                None => hash(&self.on_demand_text(index - self.features.len())),
            },
            Place::Context(index) => {
                let field = &self.context[index];
                hash(&format!("context {} {}", field.name, field.data_type))
            }
        }
    }

    fn on_demand_text(&self, index: usize) -> String {
        let feature = &self.on_demand[index];
        let mut text = format!(
            "on demand {} {} default {:?}",
            feature.expression().canonical(),
            feature.data_type,
            feature.default_value()
        );
        for place in self.places_read_by(feature) {
            let _ = write!(text, "\n({})", self.meaning(place));
        }
        text
    }
}

fn feature_text(view: &CompiledView, index: usize) -> String {
    let feature = &view.features[index];
    let mut text = format!(
        "{} default {:?} ttl {:?} keep {}",
        feature.data_type, feature.default, feature.ttl, feature.stale_keep
    );
    let slot = match &feature.kind {
        FeatureKind::Expression { expression, inputs } => {
            let _ = write!(text, "\nexpression {}", expression.canonical());
            for input in inputs {
                let _ = write!(text, "\n({})", hash(&feature_text(view, *input)));
            }
            return text;
        }
        FeatureKind::Latest { slot } => {
            text.push_str("\nlatest");
            *slot
        }
        FeatureKind::Aggregate {
            function,
            slot,
            window,
            largest,
            ..
        } => {
            let _ = write!(text, "\n{function:?} over {window:?} largest {largest:?}");
            *slot
        }
    };
    let slot = &view.layout.slots[slot];
    let _ = write!(text, "\n{:?} {}", slot.spread, slot.categories_max);
    for key in &view.entity.keys {
        let _ = write!(text, "\nkey {}", key.data_type);
    }
    let among = match feature.kind {
        FeatureKind::Aggregate { among, .. } => among,
        _ => None,
    };
    let read = [slot.input, slot.filter, slot.order_by, slot.by, among];
    for source in &view.sources {
        source_text(source, &read, &mut text);
    }
    text
}

/// What a feature reads of one source.
fn source_text(source: &CompiledSource, read: &[Option<usize>], text: &mut String) {
    let spelling = |e: Option<&Expression>| e.map(|e| e.canonical().to_owned());
    let _ = write!(
        text,
        "\nsource {} where {:?} keys {:?}",
        source.contract,
        spelling(source.filter.as_ref()),
        source.key_columns,
    );
    let mut columns: Vec<&usize> = Vec::new();
    for input in read {
        let expression = input.and_then(|i| source.inputs[i].as_ref());
        let _ = write!(text, " {:?}", spelling(expression));
        columns.extend(expression.map(Expression::columns).unwrap_or_default());
    }
    columns.extend(
        source
            .filter
            .as_ref()
            .map(Expression::columns)
            .unwrap_or_default(),
    );
    for column in columns {
        let name = &source.columns[*column].name;
        let upstream = source.upstream.as_ref();
        let _ = match upstream.and_then(|u| Some((u, u.feature_index(*column)?))) {
            Some((upstream, place)) => {
                let meaning = hash(&feature_text(&upstream.view, place));
                write!(text, " {name}=({meaning})")
            }
            None => write!(text, " {name}={:?}", source.stored[*column]),
        };
    }
    if let Some(upstream) = &source.upstream {
        // Which rows there are.
        let rows = &upstream.view.sources[upstream.source];
        source_text(rows, &[], text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests stop loudly")]

    use headwater_schema::yaml::YamlDocument;

    use crate::{Catalog, Place};

    const SHOP: &str = include_str!("meaning/shop.yaml");

    fn meanings(text: &str) -> Vec<String> {
        let documents = YamlDocument::parse_all("all.yaml", text).unwrap();
        let catalog = Catalog::compile(&documents).unwrap();
        let set = catalog.set("all").unwrap();
        let names: Vec<_> = set.full_names().cloned().collect();
        let all = names
            .iter()
            .enumerate()
            .map(|(place, name)| format!("{name} {}", set.meaning(Place::Value(place))));
        all.collect()
    }

    #[test]
    fn a_meaning_changes_with_what_is_counted_and_with_nothing_else() {
        let before = meanings(SHOP);
        // What is replaced, by what, and which of the features mean something else then.
        let cases: [(&str, &str, &[&str]); 9] = [
            ("owner: sales", "owner: marketing", &[]),
            ("description: how much", "description: what", &[]),
            (
                "- {name: other, aggregate: max, of: amount}",
                "- {name: other, aggregate: min, of: amount}",
                &["spending.other"],
            ),
            (
                "of: amount, windows: [1h]",
                "of: amount * 2, windows: [1h]",
                &[
                    "spending.spent_1h",
                    "spending.share",
                    "all.ratio",
                    "later.top",
                ],
            ),
            (
                "spent_1h / 2",
                "spent_1h / 3",
                &["spending.share", "all.ratio"],
            ),
            (
                "share + context.more",
                "share - context.more",
                &["all.ratio"],
            ),
            (
                "name: more, type: number",
                "name: more, type: integer",
                &["all.ratio"],
            ),
            ("ttl: 1h", "ttl: 2h", &["spending.last"]),
            (
                "where: amount > 1",
                "where: amount > 2",
                &[
                    "spending.spent_1h",
                    "spending.other",
                    "spending.last",
                    "spending.share",
                    "later.top",
                    "all.ratio",
                ],
            ),
        ];
        for (old, new, wanted) in cases {
            assert!(SHOP.contains(old), "{old}");
            let after = meanings(&SHOP.replace(old, new));
            let other = before.iter().zip(&after).filter(|(b, a)| b != a);
            let other: Vec<&str> = other.filter_map(|(b, _)| b.split(' ').next()).collect();
            let mut wanted = wanted.to_vec();
            wanted.sort_by_key(|w| before.iter().position(|b| b.starts_with(w)));
            assert_eq!(other, wanted, "{old} → {new}");
        }
    }
}
