//! An HTTP component that keeps values, reads its configuration and writes log lines by the interfaces beside WASI.

use wstd::http::{Body, Error, Request, Response, StatusCode};

wit_bindgen::generate!({
    path: "../../../../src/engine/wasm/wit",
    world: "wcompose:extras/extras",
    generate_all,
});

use wasi::config::store as config;
use wasi::keyvalue::{atomics, batch, store};
use wasi::logging::logging::{Level, log};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    Ok(match act(&words) {
        Ok(Some(text)) => Response::new(text.into()),
        Ok(None) => Response::builder().status(StatusCode::NOT_FOUND).body("none".into())?,
        Err(error) => Response::builder().status(StatusCode::BAD_GATEWAY).body(format!("{error:?}").into())?,
    })
}

fn act(words: &[&str]) -> Result<Option<String>, store::Error> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match words {
        ["config", key] => Ok(config::get(key).expect("it never fails")),
        ["configs"] => {
            let all = config::get_all().expect("it never fails");
            Ok(Some(all.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")))
        }
        ["log", context, message] => {
            log(Level::Info, context, message);
            log(Level::Error, "", message);
            Ok(Some("logged".to_owned()))
        }
        [bucket, deed @ ..] => {
            let bucket = store::open(bucket)?;
            match deed {
                ["get", key] => Ok(bucket.get(key)?.map(text)),
                ["set", key, value] => bucket.set(key, value.as_bytes()).map(|()| Some("set".to_owned())),
                ["delete", key] => bucket.delete(key).map(|()| Some("deleted".to_owned())),
                ["exists", key] => Ok(Some(bucket.exists(key)?.to_string())),
                ["increment", key, delta] => {
                    let delta = delta.parse().map_err(|_| store::Error::Other("no number".to_owned()))?;
                    Ok(Some(atomics::increment(&bucket, key, delta)?.to_string()))
                }
                ["many", keys @ ..] => {
                    let pairs: Vec<_> = keys.iter().map(|key| ((*key).to_owned(), key.as_bytes().to_vec())).collect();
                    batch::set_many(&bucket, &pairs)?;
                    let names: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
                    batch::delete_many(&bucket, &names[..1])?;
                    let found = batch::get_many(&bucket, &names)?;
                    Ok(Some(found.into_iter().flatten().map(|(_, value)| text(value)).collect::<Vec<_>>().join(" ")))
                }
                ["keys"] => {
                    let (mut keys, mut cursor) = (Vec::new(), None);
                    loop {
                        let page = bucket.list_keys(cursor)?;
                        keys.extend(page.keys);
                        cursor = page.cursor;
                        if cursor.is_none() {
                            break;
                        }
                    }
                    keys.sort();
                    Ok(Some(keys.join(" ")))
                }
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}
