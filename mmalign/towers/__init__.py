"""The two towers: what each computes from pixels or tokens, and where its weights and tokenizer come from.

`vision` and `text` build them; `weights` finds pretrained ones; `text_files`, `tokenizer` and `sentence_modules` read
the folder of a text model, and `text_checks` refuses what it must not be; `pooling` and `regions` say what of a tower
is used; `depth`, `lora` and `additions` what of it learns; `traceable` is what the exporter can trace.
"""
