package dev.tidemark.engine.source.dma;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Where in a bitmap of ours the kernel may be told to put an answer ({@code iova_bitmap}, for
 * IOMMU_HWPT_GET_DIRTY_BITMAP and DMA_LOGGING_REPORT).
 *
 * <p>Linux 6.8 and later take any byte. Earlier ones count the bitmap in 64-bit words: of an answer
 * that begins inside such a word they skip a part, and the pages are clean afterwards. The kernel's
 * version decides, as the name of its release gives it: a trial would need a device that writes,
 * and more dirty pages than fit into one page of bitmap. A distribution's kernel with the fix and
 * an older version gets the answers of an older kernel, which are right and cost a merge.
 */
final class DirectAnswers {
  /** An answer's first page must be a multiple of this in the plane. */
  static final long ALIGNMENT = alignment(System.getProperty("os.version"));

  static final long BYTES = 8;
  static final long WORDS = 64;

  private DirectAnswers() {}

  /**
   * The alignment that a kernel needs, in pages.
   *
   * @param release such as {@code 6.12.117-amd64}; of one that cannot be read the worst is thought
   */
  static long alignment(String release) {
    Matcher version = Pattern.compile("(\\d{1,4})\\.(\\d{1,4})([^\\d].*)?").matcher(release);
    if (!version.matches()) {
      return WORDS;
    }
    int major = Integer.parseInt(version.group(1));
    int minor = Integer.parseInt(version.group(2));
    return major > 6 || major == 6 && minor >= 8 ? BYTES : WORDS;
  }
}
