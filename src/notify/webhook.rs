//! Web hooks: JSON by POST, signed as the specification "Standard Webhooks" 1.0 defines it.

use std::sync::Arc;

use super::config::WebhookConfig;
use super::notification::Notification;
use super::receiver::{Answering, Receiver};
use tapio_core::clock;
use tapio_wire::{HttpPoster, PostFailure, SecretFile, webhook_key, webhook_signature};

/// A receiver of signed JSON.
pub(super) struct Webhook {
    poster: HttpPoster,
    secret: Option<SecretFile>,
}

impl Webhook {
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let secret = config.secret_file.as_deref().map(SecretFile::new).transpose();
        let secret = secret.map_err(|e| format!("secret_file: {e}"))?;
        if let Some(secret) = &secret {
            webhook_key(&secret.text()).map_err(|e| format!("secret_file: {e}"))?;
        }
        Ok(Self { poster: HttpPoster::new(&config.http())?, secret })
    }

    async fn deliver(&self, notification: &Notification) -> Result<(), PostFailure> {
        let body = notification.json().to_string().into_bytes();
        let time_s = clock::wall_ns() / 1_000_000_000;
        let signature = self.secret.as_ref().map(|secret| {
            let key = webhook_key(&secret.text());
            key.map(|key| webhook_signature(&key, &notification.id, time_s, &body))
        });
        let retry = |cause| PostFailure::Retry { cause, after: None };
        let signature = signature.transpose().map_err(|e| retry(format!("secret_file: {e}")))?;
        let time = time_s.to_string();
        let mut headers = vec![("webhook-id", &*notification.id), ("webhook-timestamp", &*time)];
        if let Some(signature) = &signature {
            headers.push(("webhook-signature", signature));
        }
        self.poster.post("", &headers, body.into()).await.map(drop)
    }
}

impl Receiver for Webhook {
    fn send(self: Arc<Self>, notification: Notification) -> Answering {
        Box::pin(async move { self.deliver(&notification).await.map(|()| None) })
    }
}
