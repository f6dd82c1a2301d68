use std::{convert::Infallible, io::Cursor, time::Duration};

use futures_util::stream;
use hyper::{body::Bytes, header::HeaderValue};
use multer::{Multipart, parse_boundary};

use super::{Refusal, bad};

/// The content of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upload {
    /// The name of the model.
    pub model: String,
    /// The language, if any.
    pub language: Option<String>,
    /// The prompt, if any.
    pub prompt: Option<String>,
    /// The form of the reply.
    pub response_format: String,
    /// The granularities of times requested.
    pub granularities: Vec<String>,
    /// The samples.
    pub samples: Vec<i16>,
    /// Samples per second.
    pub hz: u32,
}

impl Upload {
    /// How long the audio is.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(self.hz.max(1)))
    }
}

/// Parses a form as strictly as the real service.
pub(super) async fn read(
    content_type: Option<&HeaderValue>,
    body: Bytes,
) -> Result<Upload, Refusal> {
    let content_type = content_type.and_then(|it| it.to_str().ok());
    let boundary = content_type.and_then(|it| parse_boundary(it).ok());
    let boundary = boundary.ok_or_else(|| bad("Could not parse multipart form"))?;
    let body = stream::iter([Ok::<_, Infallible>(body)]);
    let mut form = Multipart::new(body, boundary);
    let mut upload = Upload {
        response_format: "json".into(),
        ..Upload::default()
    };
    let (mut model, mut file) = (None, None);
    while let Some(field) = form.next_field().await.map_err(invalid_form)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let file_name = field.file_name().unwrap_or_default().to_owned();
            file = Some((file_name, field.bytes().await.map_err(invalid_form)?));
            continue;
        }
        let value = field.text().await.map_err(invalid_form)?;
        match name.as_str() {
            "model" => model = Some(value),
            "language" => upload.language = Some(value),
            "prompt" => upload.prompt = Some(value),
            "response_format" => upload.response_format = value,
            "timestamp_granularities[]" => upload.granularities.push(value),
            "temperature" => {}
            _ => return Err(bad(&format!("Unrecognized request argument: {name}"))),
        }
    }
    upload.model = model.ok_or_else(|| bad("you must provide a model parameter"))?;
    if upload.language.as_ref().is_some_and(|it| it.len() != 2) {
        return Err(bad(
            "Invalid language. Language must be in ISO-639-1 format",
        ));
    }
    if !upload.granularities.is_empty() && upload.response_format != "verbose_json" {
        return Err(bad(
            "timestamp_granularities needs response_format verbose_json",
        ));
    }
    let (file_name, content) = file.ok_or_else(|| bad("Missing required parameter: 'file'"))?;
    // The real service checks the file name, too.
    if !file_name.ends_with(".wav") {
        return Err(bad("Invalid file format"));
    }
    (upload.samples, upload.hz) = decode_wav(&content).ok_or_else(|| bad("Invalid file format"))?;
    Ok(upload)
}

fn decode_wav(content: &[u8]) -> Option<(Vec<i16>, u32)> {
    let mut wav = hound::WavReader::new(Cursor::new(content)).ok()?;
    let spec = wav.spec();
    let is_usual = spec.channels == 1 && spec.bits_per_sample == 16;
    let samples: Result<Vec<i16>, _> = wav.samples().collect();
    is_usual.then_some((samples.ok()?, spec.sample_rate))
}

fn invalid_form(error: multer::Error) -> Refusal {
    bad(&format!("Could not parse multipart form: {error}"))
}
