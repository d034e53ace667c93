//! One delivery: predictions as JSON, signed, and posted.

use std::io::Read;
use std::time::Duration;

use headwater_api::backend::FactRow;
use headwater_api::fact_json;
use headwater_features::Webhook;
use headwater_schema::{Micros, Problem};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Bytes of an answer that are read, so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The body of a delivery: `{"model", "first_sequence", "last_sequence", "predictions": [facts]}`.
pub(super) fn body(model: &str, rows: &[FactRow]) -> Vec<u8> {
    let sequence = |row: Option<&FactRow>| row.map(|r| r.sequence.to_string());
    let predictions: Vec<_> = rows.iter().map(fact_json).collect();
    let body = json!({
        "model": model,
        "first_sequence": sequence(rows.first()),
        "last_sequence": sequence(rows.last()),
        "predictions": predictions,
    });
    body.to_string().into_bytes()
}

/// Posts a body. Anything but a status of success is an error.
///
/// `Headwater-Signature: t=SECONDS,v1=HEX` is the HMAC-SHA256, under the secret, of `SECONDS.BODY`.
pub(super) fn post(
    webhook: &Webhook,
    model: &str,
    body: &[u8],
    now: Micros,
) -> Result<(), Problem> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_micros(webhook.timeout.unsigned_abs())))
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into();
    let mut request = agent
        .post(&webhook.url)
        .header("content-type", "application/json")
        .header("headwater-model", model);
    if let Some(name) = &webhook.secret_env {
        let secret = std::env::var(name).map_err(|e| {
            Problem::external("webhook-secret", format!("`{name}` can't be read"))
                .detail(e)
                .hint("set the environment variable for the server, or leave `secret_env` out")
        })?;
        let seconds = now.div_euclid(1_000_000);
        let signed = [format!("{seconds}.").as_bytes(), body].concat();
        let signature = hex(&hmac_sha256(secret.as_bytes(), &signed));
        request = request.header("headwater-signature", format!("t={seconds},v1={signature}"));
    }
    let failed = || {
        Problem::external(
            "webhook",
            format!("{} doesn't take predictions", webhook.url),
        )
    };
    let mut response = request
        .send(body)
        .map_err(|e| failed().detail(e).retryable())?;
    let status = response.status();
    let mut answer = Vec::new();
    let reader = response.body_mut().as_reader();
    let _ = reader.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    if status.is_success() {
        return Ok(());
    }
    Err(failed().detail(format!("it answered {status}")).retryable())
}

/// RFC 2104 over SHA-256.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut padded = [0; BLOCK];
    match key.len() > BLOCK {
        true => padded[..32].copy_from_slice(&Sha256::digest(key)),
        false => padded[..key.len()].copy_from_slice(key),
    }
    let keyed = |with: u8, message: &[u8]| {
        let key: Vec<u8> = padded.iter().map(|byte| byte ^ with).collect();
        Sha256::new()
            .chain_update(key)
            .chain_update(message)
            .finalize()
    };
    keyed(0x5c, &keyed(0x36, message)).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 1, 2 and 6.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, wanted) in cases {
            assert_eq!(hex(&hmac_sha256(key, message)), wanted);
        }
    }
}
