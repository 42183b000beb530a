package dev.tidemark.ffm;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * A region of this process's memory with one kind of access, a line of {@code /proc/self/maps}.
 *
 * @param start its first byte's address
 * @param end the address past its last byte
 * @param readable whether loads are allowed
 * @param writable whether stores are allowed
 * @param shared whether stores reach the file, and so everybody who maps it
 * @param offset bytes into the file, 0 without one
 * @param device the file system's number, {@code makedev(major, minor)}, 0 without a file
 * @param inode the file's number there, 0 without one
 */
public record MappedRegion(
    long start,
    long end,
    boolean readable,
    boolean writable,
    boolean shared,
    long offset,
    long device,
    long inode) {
  private static final Path MAPS = Path.of("/proc/self/maps");

  /**
   * Reads which regions there are in a range, as of now. Cost: all of the file, some milliseconds
   * where there are thousands of regions; allocates.
   *
   * @param start address of the first byte
   * @param end address past the last byte
   * @return regions that have a byte of the range, by address, not cut to it
   * @throws UncheckedIOException if {@code /proc} is not there
   */
  public static List<MappedRegion> in(long start, long end) {
    List<MappedRegion> found = new ArrayList<>();
    // Paths may have any bytes: ISO 8859-1 takes them all.
    try (BufferedReader lines = Files.newBufferedReader(MAPS, StandardCharsets.ISO_8859_1)) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        int dash = line.indexOf('-');
        int space = line.indexOf(' ', dash);
        long first = Long.parseUnsignedLong(line, 0, dash, 16);
        long last = Long.parseUnsignedLong(line, dash + 1, space, 16);
        if (first < end && last > start) {
          found.add(parse(first, last, line));
        }
      }
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read " + MAPS + ": is /proc mounted?", e);
    }
    return found;
  }

  private static MappedRegion parse(long start, long end, String line) {
    String[] fields = line.split(" +", 6);
    return new MappedRegion(
        start,
        end,
        fields[1].charAt(0) == 'r',
        fields[1].charAt(1) == 'w',
        fields[1].charAt(3) == 's',
        Long.parseUnsignedLong(fields[2], 16),
        device(fields[3]),
        Long.parseUnsignedLong(fields[4]));
  }

  /** As glibc's {@code makedev}, of major:minor in hexadecimal. */
  private static long device(String text) {
    int colon = text.indexOf(':');
    long major = Long.parseLong(text, 0, colon, 16);
    long minor = Long.parseLong(text, colon + 1, text.length(), 16);
    return (major & ~0xfffL) << 32 | (major & 0xfff) << 8 | (minor & ~0xffL) << 12 | minor & 0xff;
  }
}
