//! Signatures of webhooks, as the specification "Standard Webhooks" 1.0 defines them, so that
//! receivers can verify them with its libraries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The prefix of a secret whose rest is base64.
const SECRET: &str = "whsec_";
/// The shortest key, in bytes.
const MIN_KEY_BYTES: usize = 16;

/// The key in the text of a secret: after `whsec_` in base64, any other text as it is.
///
/// # Errors
/// Why the text can't be used, without any part of it.
pub fn webhook_key(secret: &str) -> Result<Vec<u8>, String> {
    let key = match secret.strip_prefix(SECRET) {
        Some(encoded) => {
            STANDARD.decode(encoded).map_err(|_| format!("what follows {SECRET} isn't base64"))?
        }
        None => secret.as_bytes().to_vec(),
    };
    match key.len() {
        ..MIN_KEY_BYTES => Err(format!("has {} bytes, at least {MIN_KEY_BYTES}", key.len())),
        _ => Ok(key),
    }
}

/// The value of the header `webhook-signature`: HMAC-SHA256 over the message's id, the time in
/// seconds since the Unix epoch, and the body.
#[must_use]
pub fn webhook_signature(key: &[u8], id: &str, time_s: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(format!("{id}.{time_s}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_that_of_the_specification() {
        // The example of the reference libraries.
        let key = webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = webhook_signature(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_that_protect_nothing_are_refused() {
        assert_eq!(webhook_key("a text of 18 bytes").unwrap().len(), 18);
        for secret in ["", "short", "whsec_c2hvcnQ=", "whsec_no base64"] {
            let error = webhook_key(secret).unwrap_err();
            assert!(!error.contains("short") && !error.contains("no base64"), "{error}");
        }
    }
}
