//! Chronon's clients ask for joins that want more than keys: the fields stand among the keys of each row.

use serde_json::json;

use crate::feast::shop;

#[test]
fn a_row_brings_its_own_fields_and_fails_alone() {
    let (_project, server) = shop();
    let row = json!({
        "customer": "ada", "amount": 50, "guests": 3, "buyer": "x", "vip": null,
        "day": "2024-10-04", "at": 1_000_000, "ignored": 1
    });
    let mut rows = [row.clone(), row.clone(), row.clone(), row];
    rows[0]["amount"] = json!(12.5);
    rows[1].as_object_mut().unwrap().remove("guests");
    rows[2]["day"] = json!({"of": "the week"});
    let path = "/chronon/v1/features/join/offer";
    let reply = server.post_json(path, &json!(rows));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let results = reply.json()["results"].clone();
    let expected = json!({
        "bought_spent": 40.0, "offer_share": 0.3125, "offer_more": 4, "offer_who": "x/ada", "offer_plain": null,
        "offer_on_day": "2024-10-04", "offer_at_time": "1970-01-01T00:00:01Z"
    });
    assert_eq!(results[0]["features"], expected, "{results}");
    assert_eq!(results[0]["entityKeys"], rows[0], "as they came");
    for (place, words) in [(1, "context field `guests` is missing"), (2, "`day`")] {
        let result = &results[place];
        assert_eq!(result["status"], "Failure", "{result}");
        let error = result["error"].as_str().unwrap();
        assert!(error.contains(words), "no {words} in {error}");
    }
    assert_eq!(results[3]["features"]["offer_share"], 1.25, "{results}");
    // All of them right: read at once.
    let reply = server.post_json(path, &json!([rows[0], rows[3]])).json();
    assert_eq!(reply["results"][1]["status"], "Success", "{reply}");
    // A group-by wants keys alone.
    let keys = json!([{"customer": "ada", "ignored": 1}]);
    let reply = server.post_json("/chronon/v1/features/groupby/bought", &keys);
    assert_eq!(reply.json()["results"][0]["features"]["spent"], 40.0);
}
