//! How to reach the API server: the service account of a pod, or a kubeconfig that the configuration names.

use std::path::Path;
use std::time::Duration;

use kube::client::Client;
use kube::config::{Config as Access, KubeConfigOptions, Kubeconfig};

use super::Config;
use crate::runtime::CollectorError;

/// A server that can't be connected to in this time is away.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the kubelet puts a service account's token; it is read again each minute, since it is renewed.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What to do where there is no cluster.
const REMEDY: &str = "no cluster: this isn't a pod with a service account, and collectors.k8s.kubeconfig names no file; \
     name one, or set collectors.k8s.enabled to false";

/// Finds the server and the credentials. A developer's own `~/.kube/config` and `$KUBECONFIG` are left alone.
///
/// # Errors
/// `Unavailable` where no cluster was meant; `Failed` where it is, and its configuration can't be read (yet).
pub(super) async fn access(config: &Config) -> Result<Access, CollectorError> {
    let failed = |e: &dyn std::fmt::Display| CollectorError::new("the cluster's configuration", e);
    let mut access = match &config.kubeconfig {
        Some(path) => from_file(path, config.context.as_deref()).await?,
        None if Path::new(TOKEN).exists()
            && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() =>
        {
            Access::incluster().map_err(|e| failed(&e))?
        }
        None => return Err(CollectorError::Unavailable(REMEDY.to_owned())),
    };
    access.connect_timeout = Some(CONNECT);
    // Refusals are counted, told and waited for by the feeds.
    access.default_retry = false;
    Ok(access)
}

async fn from_file(path: &Path, context: Option<&str>) -> Result<Access, CollectorError> {
    let named = path.display().to_string();
    let file = Kubeconfig::read_from(path).map_err(|e| CollectorError::new(&named, e))?;
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
    let access = Access::from_custom_kubeconfig(file, &options).await;
    access.map_err(|e| CollectorError::new(&named, e))
}

/// A client; it needs the runtime it is made in.
pub(super) fn client(access: Access) -> Result<Client, CollectorError> {
    Client::try_from(access).map_err(|e| CollectorError::new("a client of the API server", e))
}
