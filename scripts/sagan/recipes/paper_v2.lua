return {
    doc = "arXiv 1805.08318, second version: values projected to C/8 and back.",
    values = { model = { attention = { form = "v2" } } },
}
