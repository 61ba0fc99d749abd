//! The subject of a Kubernetes Event, from its text, so that rules can join the Events of all pods
//! with one cause: the image or registry of a failed pull, the volume or server of a failed mount.
//! The texts are those of kubelet, containerd, CRI-O, docker, mount and the attach controller.

/// Texts before the name of an image.
const BEFORE_IMAGE: [&str; 5] = [
    "Failed to pull image \"",
    "Back-off pulling image \"",
    "Failed to apply default image tag \"",
    "Failed to inspect image \"",
    "Container image \"",
];

/// Prefixes of images of the default registry, which people leave out.
const DEFAULT_REGISTRY: [&str; 3] =
    ["docker.io/library/", "docker.io/", "registry-1.docker.io/library/"];

/// Errors of a pull that concern the registry, not the image: it has no answer, or it refuses all.
const REGISTRY_ERRORS: [&str; 21] = [
    "dial tcp",
    "failed to do request",
    "i/o timeout",
    "TLS handshake",
    "Client.Timeout exceeded",
    "request canceled while waiting for connection",
    "no such host",
    "server misbehaving",
    "connection refused",
    "connection reset by peer",
    "x509: ",
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway",
    "429 Too Many Requests",
    "toomanyrequests",
    "too many requests",
    "Too Many Requests",
    "pull QPS exceeded",
    "rate limit",
];

/// Errors of a mount that concern the server, not the volume.
const SERVER_ERRORS: [&str; 14] = [
    "timed out",
    "refused",
    "No route to host",
    "unreachable",
    "not responding",
    "Host is down",
    "Connection reset",
    "Failed to resolve server",
    "failed to resolve",
    "Name or service not known",
    "Temporary failure in name resolution",
    "could not resolve address",
    "rotocol not supported",
    "protocol is not supported",
];

/// The objects that a volume may consist of; a pod's own name for the volume says less.
const OBJECTS: [&str; 3] = ["configmap \"", "secret \"", "object \""];

fn has_any(text: &str, of: &[&str]) -> bool {
    of.iter().any(|part| text.contains(part))
}

/// The image that an Event is about, and what follows its name.
fn image_and_rest(message: &str) -> Option<(&str, &str)> {
    let rest = BEFORE_IMAGE.iter().find_map(|before| message.strip_prefix(before))?;
    rest.split_once('"').filter(|(image, _)| !image.is_empty())
}

/// The image that an Event is about, without the default registry.
pub(super) fn image(message: &str) -> Option<&str> {
    let (image, _) = image_and_rest(message)?;
    let short = DEFAULT_REGISTRY.iter().find_map(|registry| image.strip_prefix(registry));
    Some(short.unwrap_or(image))
}

/// The registry that doesn't answer, or refuses all pulls, by an Event.
pub(super) fn registry(message: &str) -> Option<&str> {
    let (image, rest) = image_and_rest(message)?;
    if !message.starts_with("Failed to pull") || !has_any(rest, &REGISTRY_ERRORS) {
        return None;
    }
    // As docker's and containerd's references: a first part without dot and port is a folder.
    let host = image.split_once('/').map(|(host, _)| host);
    let is_host = |host: &&str| host.contains(['.', ':']) || *host == "localhost";
    Some(host.filter(is_host).unwrap_or("docker.io"))
}

/// A volume's name in an Event, and the error.
fn volume_and_error(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once(" for volume \"")?;
    rest.split_once('"').filter(|(volume, _)| !volume.is_empty())
}

/// The server's export or share that `mount` was called with: `10.0.9.7:/exports/a`.
fn mounted(error: &str) -> Option<&str> {
    let (_, arguments) = error.split_once("Mounting arguments: ")?;
    let (arguments, _) = arguments.split_once("Output:").unwrap_or((arguments, ""));
    // systemd-run has options of its own before those of mount.
    let (_, after) = arguments.split_once("-t ")?;
    let mut words = after.split_whitespace().skip(1);
    while let Some(word) = words.next() {
        if word == "-o" {
            words.next();
        } else if !word.starts_with('-') {
            let is_remote =
                word.starts_with("//") || (word.contains(':') && !word.starts_with('/'));
            return Some(word).filter(|_| is_remote);
        }
    }
    None
}

/// The host in an export or share.
fn host(mounted: &str) -> Option<&str> {
    let host = match mounted.strip_prefix("//") {
        Some(share) => share.split('/').next()?,
        None => mounted.split_once(":/").or_else(|| mounted.rsplit_once(':'))?.0,
    };
    Some(host).filter(|host| !host.is_empty())
}

/// The object that a volume consists of: `configmap "app"`.
fn object(error: &str) -> Option<&str> {
    let error = &error[OBJECTS.iter().find_map(|object| error.find(object))?..];
    error.split_once(" not ").map(|(object, _)| object)
}

/// The volume that can't be attached or mounted: what it consists of, or its name.
pub(super) fn volume(message: &str) -> Option<&str> {
    let (volume, error) = volume_and_error(message)?;
    Some(object(error).or_else(|| mounted(error)).unwrap_or(volume))
}

/// The server without which a volume can't be mounted, where it doesn't answer.
pub(super) fn volume_server(message: &str) -> Option<&str> {
    let (_, error) = volume_and_error(message)?;
    let (_, output) = error.split_once("Output:").unwrap_or(("", error));
    if !has_any(output, &SERVER_ERRORS) {
        return None;
    }
    if let Some((_, rest)) = error.split_once("cannot make connection to ") {
        return rest.split([':', ' ']).next().filter(|host| !host.is_empty());
    }
    host(mounted(error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_is_the_same_in_all_events_of_its_pull() {
        for (message, expected) in [
            (r#"Failed to pull image "nginx:1.99": not found"#, Some("nginx:1.99")),
            (r#"Back-off pulling image "docker.io/library/nginx:1.99""#, Some("nginx:1.99")),
            (r#"Back-off pulling image "docker.io/a/b:1": ErrImagePull: x"#, Some("a/b:1")),
            (r#"Failed to apply default image tag "A/b": couldn't parse"#, Some("A/b")),
            (r#"Container image "r.io/a:1" is not present with"#, Some("r.io/a:1")),
            ("Error: ErrImagePull", None),
            (r#"Failed to pull image "": x"#, None),
        ] {
            assert_eq!(image(message), expected, "{message}");
        }
    }

    #[test]
    fn registry_is_the_cause_only_if_the_error_concerns_all_its_images() {
        let failed =
            |image: &str, error: &str| format!("Failed to pull image \"{image}\": {error}");
        let refused = "failed to do request: Head \"https://r.io/v2/a\": dial tcp 10.0.9.5:443: \
                       connect: connection refused";
        for (message, expected) in [
            (failed("r.io/a/b:1", refused), Some("r.io")),
            (failed("r:5000/b", "pinging container registry r:5000: i/o timeout"), Some("r:5000")),
            (failed("a/b", "toomanyrequests: You have reached"), Some("docker.io")),
            (failed("localhost/b", "503 Service Unavailable"), Some("localhost")),
            (failed("nginx", "net/http: TLS handshake timeout"), Some("docker.io")),
            (failed("r.io/a:1", "r.io/a:1: not found"), None),
            (failed("r.io/a:1", "pull access denied, 401 Unauthorized"), None),
            ("Back-off pulling image \"dial tcp\"".into(), None),
        ] {
            assert_eq!(registry(&message), expected, "{message}");
        }
    }

    #[test]
    fn volume_is_what_it_consists_of_and_the_server_is_named_if_it_is_the_cause() {
        let failed =
            |error: &str| format!("MountVolume.SetUp failed for volume \"data\" : {error}");
        let mount = |arguments: &str, output: &str| {
            failed(&format!(
                "mount failed: exit status 32\nMounting command: mount\nMounting arguments: \
                 {arguments}\nOutput: {output}"
            ))
        };
        let nfs = "-t nfs -o timeo=30,vers=4.1 10.0.9.7:/exports/a /var/lib/kubelet/pods/u/data";
        let scope = "--description=Kubernetes transient mount --scope -- mount -t cifs \
                     -o username=a //nas.example.com/share /var/lib/kubelet/pods/u/data";
        let disk = "-t ext4 -o defaults /dev/disk/by-path/ip-10.0.0.1:3260 /var/lib/x";
        for (message, expected) in [
            (
                mount(nfs, "mount.nfs: Connection timed out"),
                (Some("10.0.9.7:/exports/a"), Some("10.0.9.7")),
            ),
            (
                mount(nfs, "mount.nfs: access denied by server while mounting"),
                (Some("10.0.9.7:/exports/a"), None),
            ),
            (
                mount(scope, "mount error(113): could not connect: No route to host"),
                (Some("//nas.example.com/share"), Some("nas.example.com")),
            ),
            (
                mount("-t glusterfs 10.0.0.8:gv0 /x", "Connection refused"),
                (Some("10.0.0.8:gv0"), Some("10.0.0.8")),
            ),
            (mount(disk, "mount: timed out"), (Some("data"), None)),
            (
                failed("iscsiadm: cannot make connection to 10.0.0.4: Connection refused"),
                (Some("data"), Some("10.0.0.4")),
            ),
            (failed("configmap \"app\" not found"), (Some("configmap \"app\""), None)),
            (
                failed("object \"shop\"/\"kube-root-ca.crt\" not registered"),
                (Some("object \"shop\"/\"kube-root-ca.crt\""), None),
            ),
            (failed("rpc error: code = Internal desc = x"), (Some("data"), None)),
            ("Unable to attach or mount volumes: unmounted volumes=[data]".into(), (None, None)),
        ] {
            assert_eq!((volume(&message), volume_server(&message)), expected, "{message}");
        }
    }
}
