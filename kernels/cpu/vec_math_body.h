/*
 * vec_math_body.h - the text of vec_math.h's functions, read once with vectors and once with floats as VM_F.
 * The polynomials are interpolated at Chebyshev nodes of the reduced interval; their own error is below 2e-8.
 */

/*
 * exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to a whole number and leaves it in
 * the low bits. 2^n is applied in two halves, so that results below 2^-126 and above 2^127 are right too.
 */
static inline VM_F VM_NAME(cpu_exp)(VM_F x)
{
    x = VM_SELECT(x > 89.0f, VM_ALL(89.0f), x); /* comparisons with NaN are false: NaN passes */
    x = VM_SELECT(x < -104.0f, VM_ALL(-104.0f), x);
    VM_F t = x * 1.44269504f + 12582912.0f;
    VM_I n = VM_BITS(t) - 0x4b400000;
    VM_F whole = t - 12582912.0f;
    VM_F r = x - whole * 0.693359375f; /* ln 2 in two parts; the first has few bits: the product is exact */
    r = r + whole * 2.12194440e-4f;
    VM_F p = r * 1.98910027e-4f + 1.39336602e-3f;
    p = p * r + 8.33331048e-3f;
    p = p * r + 4.1666463e-2f;
    p = p * r + 0.166666672f;
    p = p * r + 0.5f;
    VM_F y = (p * r) * r + r + 1.0f;
    VM_I half = n >> 1;
    VM_F a = VM_FLOAT((VM_U)(half + 127) << 23);
    VM_F b = VM_FLOAT((VM_U)(n - half + 127) << 23);
    return (y * a) * b;
}

/* log(x) = k ln 2 + log(1 + f), 1 + f between sqrt(1/2) and sqrt(2): f + f^2 (f P(f) - 1/2). */
static inline VM_F VM_NAME(cpu_log)(VM_F x)
{
    VM_F big = x * 8388608.0f;
    VM_F v = VM_SELECT(x < 1.17549435e-38f, big, x); /* subnormal numbers get an exponent */
    VM_F k0 = VM_SELECT(x < 1.17549435e-38f, VM_ALL(-23.0f), VM_ALL(0.0f));
    VM_I i = VM_BITS(v) - 0x3f3504f3;
    VM_F k = VM_CONVERT(i >> 23) + k0;
    VM_F f = VM_FLOAT((i & 0x007fffff) + 0x3f3504f3) - 1.0f;
    VM_F p = f * 6.97168186e-2f - 0.114798367f;
    p = p * f + 0.116854429f;
    p = p * f - 0.12425676f;
    p = p * f + 0.142490536f;
    p = p * f - 0.166678026f;
    p = p * f + 0.200007156f;
    p = p * f - 0.24999997f;
    p = p * f + 0.333333313f;
    p = p * f - 0.5f;
    VM_F y = (f * f) * p + f;
    y = y + k * -2.12194440e-4f;
    y = y + k * 0.693359375f;
    y = VM_SELECT(x < VM_ALL(__builtin_inff()), y, x); /* inf and NaN */
    y = VM_SELECT(x == 0.0f, VM_ALL(-__builtin_inff()), y);
    return VM_SELECT(x < 0.0f, VM_ALL(__builtin_nanf("")), y);
}

/* x + x^3 P(x^2) near 0, else 1 - 2 / (exp(2|x|) + 1) with the sign of x. */
static inline VM_F VM_NAME(cpu_tanh)(VM_F x)
{
    VM_F size = VM_FLOAT(VM_BITS(x) & 0x7fffffff);
    VM_F e = VM_NAME(cpu_exp)(size + size);
    VM_F far = 1.0f - 2.0f / (e + 1.0f);
    far = VM_FLOAT(VM_BITS(far) | (VM_BITS(x) & (VM_I)(VM_BITS(VM_ALL(-0.0f)))));
    VM_F z = x * x;
    VM_F p = z * -6.09671418e-3f + 2.09971797e-2f;
    p = p * z - 5.38509078e-2f;
    p = p * z + 0.133327693f;
    p = p * z - 0.333333284f;
    VM_F near = x + (x * z) * p;
    return VM_SELECT(size < 0.625f, near, far);
}

/* 1 / (1 + e) or e / (1 + e) with e = exp(-|x|) <= 1: no overflow, and small results keep their digits. */
static inline VM_F VM_NAME(cpu_sigmoid)(VM_F x)
{
    VM_F e = VM_NAME(cpu_exp)(-VM_FLOAT(VM_BITS(x) & 0x7fffffff));
    VM_F r = 1.0f / (1.0f + e);
    return VM_SELECT(x < 0.0f, e * r, r);
}

/* max(x, 0) + log(1 + e), e = exp(-|x|). The rounding of u = 1 + e is put back: log(1 + e) = log u + (e - (u - 1)) / u. */
static inline VM_F VM_NAME(cpu_softplus)(VM_F x)
{
    VM_F size = VM_FLOAT(VM_BITS(x) & 0x7fffffff);
    VM_F e = VM_NAME(cpu_exp)(-size);
    VM_F u = 1.0f + e;
    VM_F tail = VM_NAME(cpu_log)(u) + (e - (u - 1.0f)) / u;
    return VM_SELECT(x < 0.0f, VM_ALL(0.0f), x) + tail;
}

#undef VM_NAME
#undef VM_F
#undef VM_I
#undef VM_U
#undef VM_ALL
#undef VM_SELECT
#undef VM_BITS
#undef VM_FLOAT
#undef VM_CONVERT
