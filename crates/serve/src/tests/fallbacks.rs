//! What stands in where a model can't answer.

use super::traffic::{column, with_aliases};
use super::*;

const DECLARED: &str = "  fallback: [{last_good: 10m}, {constant: 0.5}]\n";

/// Why a fallback was answered, and which.
fn degraded(reply: &PredictReply) -> (&str, &'static str) {
    let degraded = reply.degraded.as_ref().unwrap();
    (&degraded.reason, degraded.fallback)
}

fn with_context(customer: &str, more: i64) -> PredictRequest {
    let mut request = asked(customer);
    if let InputRows::Entities { context, .. } = &mut request.rows {
        *context = vec![ContextRow::from([("more".to_owned(), more.into())])];
    }
    request
}

fn of_candidates(customers: &[&str]) -> PredictRequest {
    let mut request = asked("");
    if let InputRows::Entities {
        entities,
        candidates,
        ..
    } = &mut request.rows
    {
        *entities = vec![EntityRequest::new()];
        let ids = customers.iter();
        *candidates = Some(Candidates {
            entity: "customer".to_owned(),
            ids: ids.map(|c| KeyValue::Scalar(Value::string(c))).collect(),
        });
    }
    request
}

#[test]
fn a_panic_is_answered_by_the_fallback() {
    let shop = shop(DECLARED, one_thread(), None);
    let good = shop.serving.predict(asked("a")).unwrap();
    for (customer, fallback) in [("a", "last_good"), ("b", "constant")] {
        shop.then([Next::Panic]);
        let reply = shop.serving.predict(asked(customer)).unwrap();
        assert_eq!(degraded(&reply), ("panic", fallback));
        assert_eq!(reply.outputs == good.outputs, fallback == "last_good");
    }
    // The only thread is still there.
    assert_eq!(shop.serving.predict(asked("b")).unwrap().degraded, None);
    let shop = super::shop("", one_thread(), None);
    shop.then([Next::Panic]);
    let problem = shop.serving.predict(asked("a")).unwrap_err();
    assert_eq!(problem.code, "panic");
}

#[test]
fn a_last_good_answer_was_asked_with_the_same_entities_and_context() {
    let shop = shop(DECLARED, one_thread(), None);
    let small = shop.serving.predict(with_context("a", 1)).unwrap();
    let ask = |request: PredictRequest| {
        shop.then([Next::Fail]);
        shop.serving.predict(request).unwrap()
    };
    for (request, fallback) in [
        (with_context("a", 1), "last_good"),
        (with_context("a", 1_000_000), "constant"),
        (with_context("b", 1), "constant"),
    ] {
        let reply = ask(request);
        assert_eq!(degraded(&reply), ("store-lost", fallback));
        assert_eq!(reply.outputs == small.outputs, fallback == "last_good");
    }
    // A candidate is a row like any other, with the context that all share.
    shop.serving.predict(of_candidates(&["c", "d"])).unwrap();
    for (candidates, fallback) in [
        (&["d", "c"][..], "last_good"),
        (&["c", "e"], "constant"),
        (&["a"], "constant"),
    ] {
        let reply = ask(of_candidates(candidates));
        assert_eq!(degraded(&reply), ("store-lost", fallback), "{candidates:?}");
    }
    assert_eq!(degraded(&ask(with_context("c", 2))).1, "last_good");
}

#[test]
fn an_unloaded_model_is_answered_by_its_fallback_and_stays_counted() {
    let shop = shop(DECLARED, one_thread(), None);
    let good = shop.serving.predict(asked("a")).unwrap();
    shop.serving.unload_model("fraud").unwrap();
    for (customer, fallback) in [("a", "last_good"), ("b", "constant")] {
        let reply = shop.serving.predict(asked(customer)).unwrap();
        assert_eq!(degraded(&reply), ("no-live-version", fallback));
        // Under the names of the model's own outputs.
        assert_eq!(reply.outputs[0][0].0, good.outputs[0][0].0);
        let same = reply.outputs[0][0].1 == good.outputs[0][0].1;
        assert_eq!(same, fallback == "last_good");
    }
    assert_eq!(
        shop.serving.signature("fraud", None).unwrap_err().code,
        "no-live-version"
    );
    let stats = shop.serving.stats();
    let of_model = &stats.models[0];
    assert_eq!((stats.loaded_bytes, of_model.rows), (0, 3));
    assert_eq!(of_model.answered.values().sum::<u64>(), 1);
    assert_eq!(of_model.degraded["no-live-version"], 2);
    shop.serving.load_model("fraud").unwrap();
    let again = shop.serving.predict(asked("a")).unwrap();
    assert_eq!((&again.degraded, &again.outputs), (&None, &good.outputs));
}

#[test]
fn another_version_answers_while_there_is_time() {
    let fallback = "  fallback: [{alias: stable}, {constant: 0.5}]\n";
    let shop = shop(fallback, one_thread(), None);
    with_aliases(&shop, &[("stable", "0.125")]);
    let stable = PredictRequest {
        version: Some("stable".to_owned()),
        ..asked("a")
    };
    let stable = shop.serving.predict(stable).unwrap();
    shop.then([Next::Fail]);
    let reply = shop.serving.predict(asked("a")).unwrap();
    assert_eq!(degraded(&reply), ("store-lost", "alias"));
    assert_eq!(reply.version.as_deref(), Some("v-stable"));
    assert_eq!(reply.outputs, stable.outputs);
    let live = shop.serving.predict(asked("a")).unwrap();
    assert_ne!(live.outputs, stable.outputs);
    // It fails, too.
    shop.then([Next::Fail, Next::Fail]);
    let both = shop.serving.predict(asked("a")).unwrap();
    assert_eq!(degraded(&both), ("store-lost", "constant"));
    // There is no time left to ask it.
    let (go, until) = channel();
    let (reached, _standing) = channel();
    shop.then([Next::Stall(reached, until)]);
    let late = shop.serving.predict(asked("a")).unwrap();
    assert_eq!(degraded(&late), ("deadline", "constant"));
    drop(go);
    shop.serving.stop();
    let batches: Vec<FactBatch> = shop.written.try_iter().collect();
    let (ids, policies) = (column(&batches, "id"), column(&batches, "policy"));
    for (reply, policy) in [(&reply, "stable"), (&both, "fallback"), (&late, "fallback")] {
        let id = Value::string(&reply.prediction_ids[0]);
        let place = ids.iter().position(|other| *other == id).unwrap();
        assert_eq!(policies[place], Value::string(policy));
    }
}
