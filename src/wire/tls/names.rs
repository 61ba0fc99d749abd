//! The names in a certificate. A verified certificate only: its names are then those that the
//! authority has confirmed.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The prefix of a node's URI.
const NODE_URI: &str = "tapio:node/";
/// The DER of the object identifier 2.5.4.3, the common name (RFC 5280, appendix A.1).
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
/// Tags of the strings that a common name may be: UTF8String, PrintableString, IA5String.
const STRINGS: [u8; 3] = [0x0c, 0x13, 0x16];

/// The names: of `tapio:node/NAME` and DNS among the alternative ones, else the common name.
pub(crate) fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let nodes = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(NODE_URI));
    let names = nodes.chain(parsed.valid_dns_names()).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if !names.is_empty() {
        return names;
    }
    common_name(parsed.subject()).map(str::to_owned).into_iter().collect()
}

/// The common name in the DER of a subject, with or without the tag around it.
fn common_name(subject: &[u8]) -> Option<&str> {
    let mut rest = subject;
    if let Some((0x30, content, [])) = element(subject) {
        rest = content;
    }
    let mut found = None;
    // RDNSequence: SETs of SEQUENCEs of a type and a value. The last common name is the most
    // specific.
    while let Some((_, set, after)) = element(rest) {
        rest = after;
        let mut members = set;
        while let Some((_, pair, after)) = element(members) {
            members = after;
            if let Some(value) = pair.strip_prefix(COMMON_NAME)
                && let Some((tag, text, _)) = element(value)
                && STRINGS.contains(&tag)
            {
                found = std::str::from_utf8(text).ok().filter(|text| !text.is_empty());
            }
        }
    }
    found
}

/// When a certificate expires, as `YYYYMMDDHHMMSS` in UTC (RFC 5280, section 4.1.2.5).
pub(super) fn certificate_end(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, signed, _) = element(element(certificate)?.1)?;
    // Before the validity: the version, if there is one; number, algorithm, issuer.
    let mut rest = signed;
    if let Some((0xa0, _, after)) = element(rest) {
        rest = after;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (tag, end, _) = element(element(validity)?.2)?;
    let end = std::str::from_utf8(end).ok()?.strip_suffix('Z')?;
    match tag {
        // UTCTime: two digits of the year, from 1950 to 2049.
        0x17 => Some(format!("{}{end}", if end < "50" { "20" } else { "19" })),
        0x18 => Some(end.to_owned()),
        _ => None,
    }
}

/// The first element of DER: its tag, its content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, len], rest) = der.split_first_chunk::<2>()?;
    let (len, rest) = match len {
        0..=0x7f => (usize::from(len), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn names(common: Option<&str>, alternative: &[SanType]) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "organisation ".repeat(20));
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = alternative.to_vec();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate_names(certificate.der())
    }

    #[test]
    fn end_of_a_certificate_is_read() {
        for (year, end) in [(2021, "20210101000000"), (2060, "20600101000000")] {
            let mut params = CertificateParams::default();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(certificate_end(certificate.der()).as_deref(), Some(end));
        }
        assert_eq!(certificate_end(&CertificateDer::from(vec![0x30, 1])), None);
    }

    #[test]
    fn alternative_names_come_before_the_common_name() {
        let dns = SanType::DnsName("n1.example.com".try_into().unwrap());
        let node = SanType::URI("tapio:node/N_2".try_into().unwrap());
        let other = SanType::URI("spiffe://a/b".try_into().unwrap());
        assert_eq!(
            names(Some("common"), &[dns.clone(), node, other.clone()]),
            ["N_2", "n1.example.com"]
        );
        assert_eq!(names(Some("common"), &[dns]), ["n1.example.com"]);
        assert_eq!(names(Some("common"), &[other]), ["common"]);
        assert_eq!(names(None, &[]), [""; 0]);
        assert_eq!(certificate_names(&vec![0x30, 0x82, 0xff].into()), [""; 0]);
    }
}
