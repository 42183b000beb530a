package dev.tidemark.bench.cli;

import java.time.Duration;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** What people write on a command line: sizes, times, rates. */
final class Units {
  private static final Pattern SIZE = Pattern.compile("(\\d+)\\s*([KMGT]?)(i?B?)(?:/s)?");
  private static final Pattern TIME = Pattern.compile("(\\d+)\\s*(ms|s|m|h)");

  private Units() {}

  /** Bytes: {@code 512}, {@code 64MiB}, {@code 1GiB}, {@code 10M}; a unit is a power of 1024. */
  static final class Bytes implements ITypeConverter<Long> {
    @Override
    public Long convert(String text) {
      Matcher m = SIZE.matcher(text);
      if (!m.matches()) {
        throw new TypeConversionException("'" + text + "' is not a size such as 1GiB");
      }
      try {
        int shift = m.group(2).isEmpty() ? 0 : 10 * ("KMGT".indexOf(m.group(2)) + 1);
        return Math.multiplyExact(Long.parseLong(m.group(1)), 1L << shift);
      } catch (ArithmeticException | NumberFormatException e) {
        throw new TypeConversionException("'" + text + "' is too large");
      }
    }
  }

  /** Pages a second, above 0; {@code max} is 0, which guests take for as fast as they can. */
  static final class Rate implements ITypeConverter<Long> {
    @Override
    public Long convert(String text) {
      if (text.toLowerCase(Locale.ROOT).equals("max")) {
        return 0L;
      }
      try {
        long rate = Long.parseLong(text);
        if (rate > 0) {
          return rate;
        }
      } catch (NumberFormatException e) {
        // said below
      }
      throw new TypeConversionException("'" + text + "' is no number of pages/s above 0, nor max");
    }
  }

  /** A time: {@code 300ms}, {@code 5s}, {@code 2m}, {@code 1h}. */
  static final class Time implements ITypeConverter<Duration> {
    @Override
    public Duration convert(String text) {
      Matcher m = TIME.matcher(text);
      if (m.matches() && m.group(1).length() <= 12) {
        long value = Long.parseLong(m.group(1));
        Duration time =
            switch (m.group(2)) {
              case "ms" -> Duration.ofMillis(value);
              case "s" -> Duration.ofSeconds(value);
              case "m" -> Duration.ofMinutes(value);
              default -> Duration.ofHours(value);
            };
        if (!time.isZero() && time.compareTo(Duration.ofDays(365)) < 0) {
          return time;
        }
      }
      throw new TypeConversionException("'" + text + "' is not a time such as 300ms, above 0");
    }
  }

  /** A size for people, three digits or so. */
  static String size(double bytes) {
    String[] units = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    while (bytes >= 1024 && unit < units.length - 1) {
      bytes /= 1024;
      unit++;
    }
    return String.format(
        Locale.ROOT, unit == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
  }
}
