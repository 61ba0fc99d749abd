//! Media types and encodings of OTLP/HTTP requests (RFC 9110, sections 8.3 and 8.4).

use std::io::Read;

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::intake::MAX_REQUEST_BYTES;

/// The encodings that are accepted, for the header `Accept-Encoding` of a refusal.
pub(super) const ENCODINGS: &str = "gzip, zstd, deflate, identity";

/// The largest window of a zstd frame, as a power of two: a decoder allocates it.
const MAX_WINDOW_LOG: u32 = 24;

/// The encoding of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

impl Media {
    /// The media type of a request; `None` where it isn't one of OTLP.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let media = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        // Parameters follow.
        let media = media.split(';').next().unwrap_or(media).trim();
        [Self::Protobuf, Self::Json].into_iter().find(|m| media.eq_ignore_ascii_case(m.as_str()))
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// Why a body can't be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UnpackError {
    /// An unknown encoding.
    Encoding(String),
    /// The unpacked body is larger than [`MAX_REQUEST_BYTES`].
    TooLarge,
    /// The bytes aren't of this encoding.
    Invalid(String),
}

/// Undoes the encodings of a body, the last one first.
pub(super) fn unpack(headers: &HeaderMap, mut body: Bytes) -> Result<Bytes, UnpackError> {
    for header in headers.get_all(CONTENT_ENCODING).iter().rev() {
        let encodings = header.to_str().map_err(|e| UnpackError::Encoding(e.to_string()))?;
        for encoding in encodings.split(',').rev() {
            body = unpack_once(encoding.trim(), body)?;
        }
    }
    Ok(body)
}

fn unpack_once(encoding: &str, body: Bytes) -> Result<Bytes, UnpackError> {
    let invalid = |e: std::io::Error| UnpackError::Invalid(format!("{encoding}: {e}"));
    let is = |name: &str| encoding.eq_ignore_ascii_case(name);
    if encoding.is_empty() || is("identity") {
        return Ok(body);
    }
    if is("gzip") || is("x-gzip") {
        return read(MultiGzDecoder::new(&body[..])).map_err(invalid)?;
    }
    if is("deflate") {
        return read(ZlibDecoder::new(&body[..])).map_err(invalid)?;
    }
    if is("zstd") {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(invalid)?;
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(invalid)?;
        return read(decoder).map_err(invalid)?;
    }
    Err(UnpackError::Encoding(encoding.to_owned()))
}

/// Reads what a decoder yields, within the bound.
fn read(decoder: impl Read) -> std::io::Result<Result<Bytes, UnpackError>> {
    let mut unpacked = Vec::new();
    decoder.take(MAX_REQUEST_BYTES as u64 + 1).read_to_end(&mut unpacked)?;
    let is_within = unpacked.len() <= MAX_REQUEST_BYTES;
    Ok(if is_within { Ok(unpacked.into()) } else { Err(UnpackError::TooLarge) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(encodings: &[&'static str], body: Vec<u8>) -> Result<Bytes, UnpackError> {
        let mut headers = HeaderMap::new();
        for encoding in encodings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        unpack(&headers, body.into())
    }

    #[test]
    fn bodies_are_unpacked_in_every_encoding() {
        let text = b"a request, a request, a request".to_vec();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for (encodings, body) in [
            (&[][..], text.clone()),
            (&["identity"], text.clone()),
            (&["gzip"], gzip(&text)),
            (&["GZIP"], gzip(&text)),
            (&["x-gzip"], [gzip(&text[..9]), gzip(&text[9..])].concat()),
            (&["deflate"], deflate(&text)),
            (&["zstd"], zstd.clone()),
            (&["zstd, gzip"], gzip(&zstd)),
            (&["zstd", "gzip"], gzip(&zstd)),
        ] {
            assert_eq!(unpacked(encodings, body).as_deref(), Ok(&text[..]), "{encodings:?}");
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused_within_the_bound() {
        let zeros = vec![0; MAX_REQUEST_BYTES + 1];
        let zstd = zstd::encode_all(&zeros[..], 1).unwrap();
        for (encoding, body) in
            [("gzip", gzip(&zeros)), ("deflate", deflate(&zeros)), ("zstd", zstd)]
        {
            assert!(body.len() < MAX_REQUEST_BYTES / 100, "{encoding}");
            assert_eq!(unpacked(&[encoding], body), Err(UnpackError::TooLarge), "{encoding}");
        }
        assert_eq!(unpacked(&["gzip"], gzip(&zeros[1..])).unwrap().len(), MAX_REQUEST_BYTES);
        assert_eq!(unpacked(&["br"], vec![1]), Err(UnpackError::Encoding("br".into())));
        for encoding in ["gzip", "deflate", "zstd"] {
            let error = unpacked(&[encoding], b"no".to_vec());
            assert!(matches!(error, Err(UnpackError::Invalid(_))), "{encoding}: {error:?}");
        }
        // A window of 2 GiB, which a decoder would allocate (RFC 8878, section 3.1.1.1.2).
        let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        let error = unpacked(&["zstd"], window.to_vec());
        assert!(matches!(error, Err(UnpackError::Invalid(_))), "{error:?}");
    }

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        let media = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            Media::of(&headers)
        };
        assert_eq!(media("application/x-protobuf"), Some(Media::Protobuf));
        assert_eq!(media("Application/X-Protobuf; charset=utf-8"), Some(Media::Protobuf));
        assert_eq!(media("application/JSON;charset=UTF-8"), Some(Media::Json));
        assert_eq!(media("application/x-protobuffer"), None);
        assert_eq!(Media::of(&HeaderMap::new()), None);
    }
}
