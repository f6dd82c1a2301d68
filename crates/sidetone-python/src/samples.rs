use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyMemoryView},
};

const EXPECTED: &str = "samples are 16-bit integers: bytes in little-endian order, array('h'), or a NumPy array of int16; \
     floats have to be scaled first, as in (x * 32767).astype('int16')";

/// The samples of an object with the buffer protocol: bytes in little-endian order, or 16-bit integers.
pub(crate) fn samples_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<i16>> {
    let py = object.py();
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return from_bytes(bytes.as_bytes());
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return from_bytes(&bytes.to_vec());
    }
    let kind = object.get_type();
    let wrong = || PyTypeError::new_err(format!("{kind} holds no samples: {EXPECTED}"));
    let view = PyMemoryView::from(object).map_err(|_| wrong())?;
    let format: String = view.getattr(intern!(py, "format"))?.extract()?;
    if !matches!(&*format, "B" | "b" | "c" | "h" | "<h" | "@h" | "=h") {
        return Err(wrong());
    }
    let bytes = view.call_method0(intern!(py, "tobytes"))?;
    from_bytes(bytes.cast::<PyBytes>()?.as_bytes())
}

fn from_bytes(bytes: &[u8]) -> PyResult<Vec<i16>> {
    match bytes.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect()),
        _ => Err(PyValueError::new_err(format!(
            "{} bytes are no whole number of samples: {EXPECTED}",
            bytes.len()
        ))),
    }
}

/// Samples as bytes in little-endian order.
pub(crate) fn to_bytes<'py>(py: Python<'py>, samples: &[i16]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, 2 * samples.len(), |bytes| {
        for (pair, sample) in bytes.chunks_mut(2).zip(samples) {
            pair.copy_from_slice(&sample.to_le_bytes());
        }
        Ok(())
    })
}
