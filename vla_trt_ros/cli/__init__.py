"""``vla-trt <verb>``: one file a verb, imported when it is used."""
