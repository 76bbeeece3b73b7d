//! Changes to TOML through `toml_edit`, which keeps comments, order and the way that values are written. Each result is
//! held against what the change should have made of the document.

use runback_core::Json;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

use super::change::{Change, Edit};
use super::path::{self, Seg};

/// The edited text. The error says what is wrong with the text or the edit.
pub(super) fn edit(text: &str, edit: &Edit) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    let mut wanted = json_of_table(document.as_table().iter());
    let changes = edit.changes(&wanted)?;
    if changes.is_empty() {
        return Ok(text.to_owned());
    }
    for change in changes {
        let refused = || format!("`{}` cannot be changed in place", edit.path());
        make(document.as_item_mut(), &change)?;
        change.apply(&mut wanted).ok_or_else(refused)?;
        if json_of_table(document.as_table().iter()) != wanted {
            return Err(refused());
        }
    }
    Ok(document.to_string())
}

fn reach<'a>(root: &'a mut Item, address: &[Seg]) -> Result<&'a mut Item, String> {
    let gone = || format!("nothing is at `{}`", path::show(address));
    address.iter().try_fold(root, |item, seg| match seg {
        Seg::Key(key) => item.get_mut(key.as_str()).ok_or_else(gone),
        Seg::Index(index) => item.get_mut(*index).ok_or_else(gone),
    })
}

fn make(root: &mut Item, change: &Change) -> Result<(), String> {
    let above = |address: &[Seg]| -> Result<(Vec<Seg>, Seg), String> {
        let (last, above) = address.split_last().ok_or("the whole file cannot be changed as one")?;
        Ok((above.to_vec(), last.clone()))
    };
    match change {
        Change::Set(address, new) => {
            let mut there = 0;
            while there < address.len() && reach(root, &address[..=there]).is_ok() {
                there += 1;
            }
            if there == address.len() {
                let item = reach(root, address)?;
                if let (Some(old), Ok(mut new)) = (item.as_value_mut(), value(new)) {
                    *new.decor_mut() = old.decor().clone();
                    *old = new;
                } else {
                    *item = Item::Value(value(new)?);
                }
                return Ok(());
            }
            let mut parent = reach(root, &address[..there])?;
            let (last, between) = address[there..].split_last().ok_or("nothing to set")?;
            for seg in between {
                let Seg::Key(key) = seg else { return Err("a list cannot be made on the way".to_owned()) };
                let inline = parent.is_inline_table();
                let fresh = if inline { Item::Value(InlineTable::new().into()) } else { Item::Table(Table::new()) };
                let table = parent.as_table_like_mut().ok_or("not a table")?;
                table.insert(key, fresh);
                parent = table.get_mut(key).ok_or("not a table")?;
            }
            let Seg::Key(key) = last else { return Err("a list cannot be made on the way".to_owned()) };
            parent.as_table_like_mut().ok_or("not a table")?.insert(key, Item::Value(value(new)?));
        }
        Change::Remove(address) => {
            let (up, last) = above(address)?;
            match (reach(root, &up)?, last) {
                (item, Seg::Key(key)) => {
                    item.as_table_like_mut().and_then(|t| t.remove(&key)).ok_or("nothing is there")?;
                }
                (Item::Value(Value::Array(list)), Seg::Index(index)) if index < list.len() => {
                    list.remove(index);
                }
                (Item::ArrayOfTables(list), Seg::Index(index)) if index < list.len() => {
                    list.remove(index);
                }
                _ => return Err("nothing is there".to_owned()),
            }
        }
        Change::Append(address, item) => match reach(root, address)? {
            Item::Value(Value::Array(list)) => list.push(value(item)?),
            _ => return Err("an array of tables takes no value".to_owned()),
        },
        Change::Rename(address, to) => {
            let (up, last) = above(address)?;
            let Seg::Key(key) = last else { return Err("an item of a list has no name".to_owned()) };
            let table = reach(root, &up)?.as_table_like_mut().ok_or("not a table")?;
            // toml_edit keeps the order of insertion: all that follow are put in again behind the new key.
            let names: Vec<String> = table.iter().map(|(k, _)| k.to_owned()).collect();
            let from = names.iter().position(|n| *n == key).ok_or("nothing is there")?;
            for name in &names[from..] {
                let decor = table.key(name).cloned();
                let item = table.remove(name).ok_or("nothing is there")?;
                let name = if *name == key { to } else { name };
                table.insert(name, item);
                if let (Some(old), Some(mut new)) = (decor, table.key_mut(name)) {
                    *new.leaf_decor_mut() = old.leaf_decor().clone();
                    *new.dotted_decor_mut() = old.dotted_decor().clone();
                }
            }
        }
    }
    Ok(())
}

fn value(json: &Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => return Err("TOML has no null".to_owned()),
        Json::Bool(b) => (*b).into(),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => i.into(),
            (None, Some(f)) if n.is_f64() => f.into(),
            _ => return Err(format!("the number {n} does not fit into TOML")),
        },
        Json::String(s) => s.as_str().into(),
        Json::Array(list) => Value::Array(list.iter().map(value).collect::<Result<Array, String>>()?),
        Json::Object(map) => {
            let pairs = map.iter().map(|(k, v)| Ok((k.as_str(), value(v)?)));
            Value::InlineTable(pairs.collect::<Result<InlineTable, String>>()?)
        }
    })
}

fn json_of_table<'a>(entries: impl Iterator<Item = (&'a str, &'a Item)>) -> Json {
    Json::Object(entries.map(|(k, item)| (k.to_owned(), json_of(item))).collect())
}

fn json_of(item: &Item) -> Json {
    match item {
        Item::None => Json::Null,
        Item::Value(value) => json_of_value(value),
        Item::Table(table) => json_of_table(table.iter()),
        Item::ArrayOfTables(list) => list.iter().map(|t| json_of_table(t.iter())).collect(),
    }
}

fn json_of_value(value: &Value) -> Json {
    match value {
        Value::String(s) => s.value().as_str().into(),
        Value::Integer(i) => (*i.value()).into(),
        Value::Float(f) => (*f.value()).into(),
        Value::Boolean(b) => (*b.value()).into(),
        Value::Datetime(d) => d.value().to_string().into(),
        Value::Array(list) => list.iter().map(json_of_value).collect(),
        Value::InlineTable(table) => {
            Json::Object(table.iter().map(|(k, v)| (k.to_owned(), json_of_value(v))).collect())
        }
    }
}
