//! Rows shared out among aliases, and shadows that nobody hears.

use super::*;

pub(super) fn with_aliases(shop: &Shop, aliases: &[(&str, &str)]) {
    for (alias, leaf) in aliases {
        let new = NewVersion {
            version: Some(format!("v-{alias}")),
            aliases: vec![(*alias).to_owned()],
            ..NewVersion::default()
        };
        let added = shop
            .serving
            .add("fraud", with_leaf(leaf), &new, Default::default());
        added.unwrap();
    }
}

fn customers(names: &[String]) -> PredictRequest {
    let entity = |name: &String| {
        let key = KeyValue::Scalar(Value::string(name));
        EntityRequest::from([("customer".to_owned(), key)])
    };
    let context = ContextRow::from([("more".to_owned(), 2.into())]);
    PredictRequest {
        rows: InputRows::Entities {
            entities: names.iter().map(entity).collect(),
            context: vec![context; names.len()],
            candidates: None,
        },
        ..asked("")
    }
}

pub(super) fn column(batches: &[FactBatch], name: &str) -> Vec<Value> {
    let of_batch = |batch: &FactBatch| {
        let column = batch.columns.column_by_name(name).unwrap().clone();
        (0..batch.len())
            .map(move |row| Value::from_array(&column, row))
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(of_batch).collect()
}

#[test]
fn an_entity_stays_with_its_arm_and_rows_are_answered_by_their_own() {
    let traffic = "  traffic: {by: customer, experiment: late, arms: [{alias: canary, share: 0.2}, {alias: gone, share: 0.3}]}\n";
    let names: Vec<String> = (0..400).map(|n| format!("c{n}")).collect();
    let mut before: Option<Vec<Arc<str>>> = None;
    for _ in 0..2 {
        // As after a restart: nothing is remembered.
        let shop = shop(traffic, ServingSettings::default(), None);
        // Without versions the arms' shares are `live`'s.
        let reply = shop.serving.predict(customers(&names)).unwrap();
        assert!(
            reply
                .answered_by
                .iter()
                .all(|by| &*by.alias == "live" && by.propensity == 1.0)
        );
        with_aliases(&shop, &[("canary", "0.125")]);
        let reply = shop.serving.predict(customers(&names)).unwrap();
        let arms: Vec<Arc<str>> = reply
            .answered_by
            .iter()
            .map(|by| by.alias.clone())
            .collect();
        let canary = arms.iter().filter(|arm| &***arm == "canary").count();
        assert!((50..110).contains(&canary), "{canary}");
        assert_eq!(reply.version, None);
        // Each row is what its version says of it alone, asked by name.
        for (row, by) in reply.answered_by.iter().enumerate() {
            let propensity = if &*by.alias == "canary" { 0.2 } else { 0.8 };
            assert_eq!(by.propensity, propensity);
            if row % 20 == 0 {
                let named = PredictRequest {
                    version: Some(by.alias.to_string()),
                    ..customers(&names[row..=row])
                };
                let alone = shop.serving.predict(named).unwrap();
                assert_eq!(alone.outputs[0], reply.outputs[row]);
                let again = shop.serving.predict(customers(&names[row..=row])).unwrap();
                assert_eq!(again.answered_by[0].alias, by.alias);
                assert_eq!(again.version, Some(by.version.clone()));
            }
        }
        if let Some(before) = before.replace(arms.clone()) {
            assert_eq!(before, arms);
        }
        shop.serving.stop();
        let batches: Vec<FactBatch> = shop.written.try_iter().collect();
        let ids = column(&batches, "id");
        let told = ["policy", "propensity", "experiment"].map(|name| column(&batches, name));
        for (id, by) in reply.prediction_ids.iter().zip(&reply.answered_by) {
            let place = ids.iter().position(|other| *other == Value::string(id));
            let written = told.each_ref().map(|column| column[place.unwrap()].clone());
            let wanted = [
                Value::String(by.alias.clone()),
                Value::Float(by.propensity),
                Value::string("late"),
            ];
            assert_eq!(written, wanted);
        }
    }
}

#[test]
fn shadows_are_written_down_and_delay_or_fail_nobody() {
    let traffic = "  traffic: {shadow: [next, gone]}\n";
    let settings = ServingSettings {
        shadow_queue_requests_max: 1000,
        ..ServingSettings::default()
    };
    let shop = shop(traffic, settings, None);
    with_aliases(&shop, &[("next", "0.125")]);
    let mut heard = Vec::new();
    for n in 0..20 {
        let reply = shop.serving.predict(asked(&format!("c{n}"))).unwrap();
        assert_eq!(
            (reply.degraded.as_ref(), reply.answered_by.len()),
            (None, 1)
        );
        heard.push(reply.prediction_ids[0].clone());
    }
    shop.serving.stop();
    let shadows = shop.serving.stats().models[0].shadows.clone();
    let wanted = [("answered".to_owned(), 20), ("failed".to_owned(), 20)];
    assert_eq!(shadows, BTreeMap::from(wanted));
    let batches: Vec<FactBatch> = shop.written.try_iter().collect();
    let (ids, shadow_of) = (column(&batches, "id"), column(&batches, "shadow_of"));
    let (policies, outputs) = (column(&batches, "policy"), column(&batches, "outputs"));
    assert_eq!(ids.len(), 40);
    for id in heard {
        let id = Value::string(&id);
        let live = ids.iter().position(|other| *other == id).unwrap();
        let shadow = shadow_of.iter().position(|other| *other == id).unwrap();
        assert_eq!(
            (&policies[live], &shadow_of[live]),
            (&Value::string("live"), &Value::Null)
        );
        assert_eq!(policies[shadow], Value::string("next"));
        assert_ne!(outputs[live], outputs[shadow]);
        for same in [
            "features",
            "time",
            "known_at",
            "request_id",
            "row",
            "entities",
            "context",
        ] {
            let column = column(&batches, same);
            assert_eq!(column[live], column[shadow], "{same}");
        }
    }
}

#[test]
fn shadows_that_find_no_room_are_let_go_and_counted() {
    let settings = ServingSettings {
        shadow_queue_requests_max: 1,
        ..ServingSettings::default()
    };
    let shop = shop("  traffic: {shadow: [next]}\n", settings, None);
    with_aliases(&shop, &[("next", "0.125")]);
    let names: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    for _ in 0..50 {
        assert_eq!(
            shop.serving.predict(customers(&names)).unwrap().degraded,
            None
        );
    }
    shop.serving.stop();
    let shadows = shop.serving.stats().models[0].shadows.clone();
    assert_eq!(shadows.values().sum::<u64>(), 50, "{shadows:?}");
    assert!(shadows.contains_key("answered"));
}

#[test]
fn versions_that_there_is_no_room_for_are_refused() {
    let shop = shop("", ServingSettings::default(), None);
    let own = usize::try_from(shop.serving.stats().loaded_bytes).unwrap();
    let settings = ServingSettings {
        loaded_bytes_max: own * 5 / 2,
        ..ServingSettings::default()
    };
    let shop = super::shop("", settings, None);
    with_aliases(&shop, &[("one", "0.125")]);
    let new = NewVersion {
        aliases: vec!["two".to_owned()],
        ..NewVersion::default()
    };
    let add = |new: &NewVersion| {
        shop.serving
            .add("fraud", with_leaf("0.25"), new, Default::default())
    };
    let refused = add(&new).unwrap_err();
    assert_eq!(refused.code, "limit", "{refused}");
    assert!(shop.serving.predict(asked("a")).is_ok());
    // It may be kept, and may take another's place.
    add(&NewVersion::default()).unwrap();
    add(&NewVersion {
        aliases: vec!["one".to_owned()],
        ..NewVersion::default()
    })
    .unwrap();
    let refused = shop.serving.promote("fraud", "two", "v-one").unwrap_err();
    assert_eq!(refused.code, "limit", "{refused}");
    assert!(usize::try_from(shop.serving.stats().loaded_bytes).unwrap() <= own * 5 / 2);
}
