// SPDX-License-Identifier: GPL-2.0
/*
 * dmalog: VFIO devices without hardware that write guest memory, log what
 * they wrote and migrate, for tests. Part of Tidemark's kernel lab only.
 *
 * Each device has three regions for pread() and pwrite():
 *
 *	0	64-bit registers, enum dmalog_register: settings, commands and
 *		counters. A command's outcome is that of its pwrite().
 *	1	what the device wrote since it was opened or CLEAR was written:
 *		bit n is the 4 KiB page n of its address space.
 *	2	memory as the device sees it: access here is DMA at this IOVA.
 *
 * What is set is forgotten when the device is closed.
 */
#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <linux/xarray.h>

/* The Java twin is dev.tidemark.ffm.lab.DmaDevice. */
enum dmalog_register {
	/* Settings of the log. */
	DMALOG_PAGE_SIZES,	/* it can track in these, one bit each */
	DMALOG_MAX_RANGES,	/* more are merged, holes included */
	DMALOG_MAX_SPAN,	/* bytes of a range, a longer one is refused */
	DMALOG_STRICT,		/* a report must be inside one range */
	DMALOG_CLIP,		/* to the report; else whole tracked pages */
	DMALOG_QUIESCE,		/* a report waits for marks in flight */
	DMALOG_MARK_DELAY,	/* microseconds between data and mark */
	DMALOG_DROP,		/* every n-th mark is lost, 0: none */
	DMALOG_FAIL_START,	/* with this errno, while it is not 0 */
	DMALOG_FAIL_REPORT,	/* the n-th from now on, 0: none */
	DMALOG_FAIL_AFTER,	/* so many tracked pages, at least */
	/* Settings of the migration. */
	DMALOG_FAIL_STATE,	/* the next change, with this errno */
	DMALOG_BLOB_BYTES,	/* size of the bulk of the state */
	DMALOG_BLOB_SEED,	/* and what it consists of */
	/* The DMA program; a part of the device's state. */
	DMALOG_DMA_IOVA,
	DMALOG_DMA_LENGTH,	/* bytes, whole pages */
	DMALOG_DMA_BYTES,	/* a write has, up to a page */
	DMALOG_DMA_RATE,	/* writes a second, 0: as many as can be */
	DMALOG_DMA_SEED,	/* of the next write */
	DMALOG_DMA_RUN,		/* the device's own thread does it */
	/* Commands. */
	DMALOG_DMA_BURST,	/* so many writes of the program, right now */
	DMALOG_PRECOPY_DIRTY,	/* so many bytes of state changed */
	DMALOG_CLEAR,		/* the record of writes and the counters */
	/* Counters, which can only be read. */
	DMALOG_WRITES,
	DMALOG_ERRORS,		/* of DMA, with */
	DMALOG_LAST_ERROR,
	DMALOG_MARKS,		/* tracked pages marked or dropped */
	DMALOG_DROPPED,
	DMALOG_IN_FLIGHT,	/* writes whose data is there, not the mark */
	DMALOG_REPORTS,
	DMALOG_LOGGING,		/* the tracked page's bytes, 0 if off */
	DMALOG_REMOVAL,		/* times that the device was asked back */
	DMALOG_REGISTERS
};

#define DMALOG_FIRST_COUNTER	DMALOG_WRITES

#define DMALOG_RECORD		BIT_ULL(61)
#define DMALOG_DMA		BIT_ULL(62)
#define DMALOG_MOST_DMA		SZ_1M
#define DMALOG_MOST_BLOB	SZ_64M
#define DMALOG_MOST_DELTA	SZ_1M
#define DMALOG_MOST_RANGES	256

#define CHUNK_SHIFT		15	/* bits in a page */
#define CHUNK_BITS		BIT(CHUNK_SHIFT)

/* Of each device: VFIO_MIGRATION_STOP_COPY 1, P2P 2, PRE_COPY 4. */
static const unsigned int flags[] = { 0, 1, 3, 5, 7, 7 };

static struct platform_device *devices[ARRAY_SIZE(flags)];

struct dmalog_range {
	u64 start;
	u64 last;
};

struct dmalog {
	struct vfio_device vdev;
	u64 reg[DMALOG_REGISTERS];

	/*
	 * DMA holds it for reading, from before the data until after the mark.
	 * Whoever holds it for writing sees no write in flight: START, STOP,
	 * every change of state, and a report that quiesces.
	 */
	struct rw_semaphore sem;
	enum vfio_device_mig_state state;
	struct dmalog_stream *stream;
	struct dmalog_range ranges[DMALOG_MOST_RANGES];
	unsigned int nranges;
	unsigned int shift;	/* of a tracked page, 0: not logging */
	struct xarray log;	/* of tracked pages, in chunks */
	struct xarray record;	/* of 4 KiB pages, in chunks */

	spinlock_t lock;	/* DMALOG_DMA_SEED and counters */
	wait_queue_head_t wait;
	unsigned int delays;	/* how often it was set */
	struct task_struct *thread;
};

static struct dmalog *to_dmalog(struct vfio_device *vdev)
{
	return container_of(vdev, struct dmalog, vdev);
}

static u64 setting(struct dmalog *d, enum dmalog_register r)
{
	return READ_ONCE(d->reg[r]);
}

static u64 count(struct dmalog *d, enum dmalog_register r, s64 by)
{
	u64 now;

	spin_lock(&d->lock);
	now = d->reg[r] += by;
	spin_unlock(&d->lock);
	return now;
}

static u64 mix(u64 z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Sparse bitmaps */

static int pages_reserve(struct xarray *pages, u64 first, u64 last)
{
	unsigned long at;

	for (at = first >> CHUNK_SHIFT; at <= last >> CHUNK_SHIFT; at++) {
		void *chunk, *old;

		if (xa_load(pages, at))
			continue;
		chunk = kzalloc(CHUNK_BITS / BITS_PER_BYTE, GFP_KERNEL);
		if (!chunk)
			return -ENOMEM;
		old = xa_cmpxchg(pages, at, NULL, chunk, GFP_KERNEL);
		if (old)
			kfree(chunk);
		if (xa_is_err(old))
			return xa_err(old);
	}
	return 0;
}

/* Only of what was reserved. */
static void pages_set(struct xarray *pages, u64 page)
{
	set_bit(page & (CHUNK_BITS - 1), xa_load(pages, page >> CHUNK_SHIFT));
}

static void pages_free(struct xarray *pages)
{
	unsigned long at;
	void *chunk;

	xa_for_each(pages, at, chunk)
		kfree(chunk);
	xa_destroy(pages);
}

/* The log */

/* Whether one of the ranges has some, or all, of this. */
static bool dmalog_tracks(struct dmalog *d, u64 first, u64 last, bool all)
{
	struct dmalog_range *r;

	for (r = d->ranges; r < d->ranges + d->nranges; r++)
		if (all ? r->start <= first && r->last >= last :
			  r->start <= last && r->last >= first)
			return true;
	return false;
}

static int dmalog_reserve(struct dmalog *d, u64 iova, u64 last)
{
	return pages_reserve(&d->record, iova >> PAGE_SHIFT, last >> PAGE_SHIFT) ?:
	       d->shift ? pages_reserve(&d->log, iova >> d->shift, last >> d->shift) : 0;
}

static void dmalog_mark(struct dmalog *d, u64 iova, u64 last)
{
	u64 page, next;

	for (page = iova >> d->shift; d->shift && page <= last >> d->shift; page++) {
		u64 drop = setting(d, DMALOG_DROP);

		next = (page + 1) << d->shift;
		if (!dmalog_tracks(d, max(iova, page << d->shift), min(last, next - 1), false))
			continue;
		if (count(d, DMALOG_MARKS, 1) % (drop ?: U64_MAX))
			pages_set(&d->log, page);
		else
			count(d, DMALOG_DROPPED, 1);
	}
}

static void dmalog_forget(struct dmalog *d)
{
	d->shift = 0;
	d->nranges = 0;
	d->reg[DMALOG_LOGGING] = 0;
	pages_free(&d->log);
}

static int dmalog_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes,
			    u64 *page_size)
{
	struct dmalog *d = to_dmalog(vdev);
	u64 sizes = setting(d, DMALOG_PAGE_SIZES);
	u64 most = setting(d, DMALOG_MAX_RANGES);
	struct interval_tree_node *node;
	int ret = -setting(d, DMALOG_FAIL_START);
	unsigned int n = 0;
	u64 fitting;

	if (ret)
		return ret;
	if (!is_power_of_2(*page_size))
		return -EINVAL;
	guard(rwsem_write)(&d->sem);
	if (d->shift)
		return -EINVAL;
	if (nnodes > most)
		vfio_combine_iova_ranges(ranges, nnodes, most);
	for (node = interval_tree_iter_first(ranges, 0, ULONG_MAX); node;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX)) {
		if (node->last < node->start)
			return -EINVAL;
		if (node->last - node->start >= setting(d, DMALOG_MAX_SPAN))
			return -E2BIG;
		d->ranges[n].start = node->start;
		d->ranges[n++].last = node->last;
	}
	d->nranges = n;
	fitting = sizes & (*page_size | (*page_size - 1));
	d->shift = fitting ? __fls(fitting) : __ffs(sizes);
	*page_size = BIT_ULL(d->shift);
	d->reg[DMALOG_LOGGING] = *page_size;
	return 0;
}

static int dmalog_log_stop(struct vfio_device *vdev)
{
	struct dmalog *d = to_dmalog(vdev);

	guard(rwsem_write)(&d->sem);
	dmalog_forget(d);
	return 0;
}

/* Takes the bits of a word that are asked for, and delivers them; returns how many. */
static u64 dmalog_deliver(struct dmalog *d, unsigned long *word, u64 page, u64 iova, u64 last,
			  struct iova_bitmap *dirty)
{
	u64 first = iova >> d->shift, end = last >> d->shift;
	unsigned int low = first > page ? first - page : 0;
	unsigned int high = min(end - page, BITS_PER_LONG - 1);
	unsigned long take = GENMASK(high, low), keep = 0, bits;
	bool clip = setting(d, DMALOG_CLIP);
	unsigned int from, to;

	/* A page that is asked for in part stays: the rest was not delivered. */
	if (clip && iova > (page + low) << d->shift)
		keep |= BIT(low);
	if (clip && last < ((page + high + 1) << d->shift) - 1)
		keep |= BIT(high);
	if (!(READ_ONCE(*word) & take))
		return 0;
	bits = atomic_long_fetch_andnot(take & ~keep, (atomic_long_t *)word) & take;
	for_each_set_bitrange(from, to, &bits, BITS_PER_LONG) {
		u64 start = (page + from) << d->shift;
		u64 stop = ((page + to) << d->shift) - 1;

		if (clip) {
			start = max(start, iova);
			stop = min(stop, last);
		}
		iova_bitmap_set(dirty, start, stop - start + 1);
	}
	return hweight_long(bits);
}

static int dmalog_log_read_and_clear(struct vfio_device *vdev, unsigned long iova,
				     unsigned long length, struct iova_bitmap *dirty)
{
	struct dmalog *d = to_dmalog(vdev);
	u64 last = iova + length - 1, end, delivered = 0;
	unsigned long at, *chunk;
	bool fails;

	if (setting(d, DMALOG_QUIESCE)) {
		down_write(&d->sem);
		up_write(&d->sem);
	}
	guard(rwsem_read)(&d->sem);
	count(d, DMALOG_REPORTS, 1);
	fails = setting(d, DMALOG_FAIL_REPORT) && !count(d, DMALOG_FAIL_REPORT, -1);
	if (!length || !d->shift ||
	    (setting(d, DMALOG_STRICT) && !dmalog_tracks(d, iova, last, true)))
		return -EINVAL;
	end = last >> d->shift;
	xa_for_each_range(&d->log, at, chunk, iova >> d->shift >> CHUNK_SHIFT, end >> CHUNK_SHIFT) {
		u64 first = (u64)at << CHUNK_SHIFT;
		u64 page = max(first, round_down(iova >> d->shift, BITS_PER_LONG));

		for (; page < first + CHUNK_BITS && page <= end; page += BITS_PER_LONG) {
			if (fails && delivered >= setting(d, DMALOG_FAIL_AFTER))
				return -EIO;
			delivered += dmalog_deliver(d, chunk + BIT_WORD(page - first), page, iova,
						    last, dirty);
		}
	}
	return fails ? -EIO : 0;
}

static const struct vfio_log_ops dmalog_log_ops = {
	.log_start = dmalog_log_start,
	.log_stop = dmalog_log_stop,
	.log_read_and_clear = dmalog_log_read_and_clear,
};

/* DMA */

static bool is_pre_copy(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

static bool dmalog_runs(struct dmalog *d)
{
	enum vfio_device_mig_state state = READ_ONCE(d->state);

	return state == VFIO_DEVICE_STATE_RUNNING || state == VFIO_DEVICE_STATE_RUNNING_P2P ||
	       is_pre_copy(state);
}

/* Ends when the time is over, it is set anew, or the caller is killed, which a thread cannot be. */
static void dmalog_delay(struct dmalog *d)
{
	unsigned int before = READ_ONCE(d->delays);
	u64 us = min(setting(d, DMALOG_MARK_DELAY), current->mm ? UINT_MAX : USEC_PER_SEC);

	if (!us)
		return;
	count(d, DMALOG_IN_FLIGHT, 1);
	wait_event_killable_timeout(d->wait, READ_ONCE(d->delays) != before, usecs_to_jiffies(us));
	count(d, DMALOG_IN_FLIGHT, -1);
}

static void dmalog_set_delay(struct dmalog *d, u64 us)
{
	WRITE_ONCE(d->reg[DMALOG_MARK_DELAY], us);
	WRITE_ONCE(d->delays, d->delays + 1);
	wake_up_all(&d->wait);
}

static int dmalog_write_memory(struct dmalog *d, u64 iova, void *data, size_t bytes)
{
	u64 last = iova + bytes - 1, page;
	/* Reserved before, so that no write goes unmarked for want of memory. */
	int ret = dmalog_reserve(d, iova, last);

	if (ret)
		return ret;
	ret = vfio_dma_rw(&d->vdev, iova, data, bytes, true);
	if (!ret) {
		count(d, DMALOG_WRITES, 1);
		for (page = iova >> PAGE_SHIFT; page <= last >> PAGE_SHIFT; page++)
			pages_set(&d->record, page);
		dmalog_delay(d);
	}
	/* After a failure too: some of it may have been written. */
	dmalog_mark(d, iova, last);
	return ret;
}

static int dmalog_dma(struct dmalog *d, u64 iova, void *data, size_t bytes, bool write)
{
	int ret;

	if (iova + bytes - 1 < iova)
		return -EOVERFLOW;
	guard(rwsem_read)(&d->sem);
	if (!dmalog_runs(d))
		return -EBUSY;
	ret = write ? dmalog_write_memory(d, iova, data, bytes) :
		      vfio_dma_rw(&d->vdev, iova, data, bytes, false);
	if (ret) {
		count(d, DMALOG_ERRORS, 1);
		WRITE_ONCE(d->reg[DMALOG_LAST_ERROR], -ret);
	}
	return ret;
}

/* One write of the program; all of it follows from DMALOG_DMA_SEED. */
static int dmalog_step(struct dmalog *d, u64 *data)
{
	u64 pages = setting(d, DMALOG_DMA_LENGTH) >> PAGE_SHIFT;
	u64 bytes = setting(d, DMALOG_DMA_BYTES);
	u64 seed, iova;

	if (!pages)
		return -EINVAL;
	seed = count(d, DMALOG_DMA_SEED, 0x9e3779b97f4a7c15ull);
	iova = setting(d, DMALOG_DMA_IOVA) + mix(seed) % pages * PAGE_SIZE +
	       (mix(~seed) % (PAGE_SIZE - bytes + 1) & ~7ull);
	memset64(data, mix(seed) + seed, DIV_ROUND_UP(bytes, sizeof(u64)));
	return dmalog_dma(d, iova, data, bytes, true);
}

static bool dmalog_may_step(struct dmalog *d)
{
	return setting(d, DMALOG_DMA_RUN) && dmalog_runs(d);
}

static int dmalog_thread(void *argument)
{
	struct dmalog *d = argument;
	void *data __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL | __GFP_NOFAIL);
	ktime_t began = 0;
	u64 done = 0;

	while (!kthread_should_stop()) {
		u64 rate = setting(d, DMALOG_DMA_RATE);

		if (!dmalog_may_step(d)) {
			wait_event_interruptible(d->wait, kthread_should_stop() ||
						 dmalog_may_step(d));
			began = ktime_get();
			done = 0;
			continue;
		}
		if (rate && done >= ktime_us_delta(ktime_get(), began) * rate / USEC_PER_SEC) {
			usleep_range(200, 1000);
			continue;
		}
		dmalog_step(d, data);
		done++;
		cond_resched();
	}
	return 0;
}

static int dmalog_burst(struct dmalog *d, u64 steps)
{
	void *data __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	int ret = data ? 0 : -ENOMEM;

	for (; steps && !ret; steps--) {
		ret = fatal_signal_pending(current) ? -EINTR : dmalog_step(d, data);
		cond_resched();
	}
	return ret;
}

/* Migration: a head and the blob, what changed since, a tail. */

#define DMALOG_MAGIC	0x00676f6c616d64ull

struct dmalog_head {
	u64 magic;
	u64 blob_bytes;
	u64 blob_seed;
};

struct dmalog_tail {
	u64 delta_bytes;
	u64 program[DMALOG_DMA_RUN - DMALOG_DMA_IOVA + 1];
};

/* May outlive its device. */
struct dmalog_stream {
	struct file *file;
	struct mutex lock;	/* all that follows */
	void *data;
	size_t room;
	size_t size;
	size_t pos;
	size_t initial;		/* bytes of the head and the blob */
	bool final;		/* nothing comes after what is there */
	bool over;
};

static ssize_t dmalog_stream_read(struct file *file, char __user *to, size_t bytes, loff_t *pos)
{
	struct dmalog_stream *s = file->private_data;

	guard(mutex)(&s->lock);
	bytes = min(bytes, s->size - s->pos);
	if (s->over)
		return -ENODEV;
	if (!bytes)
		return s->final ? 0 : -ENOMSG;
	if (copy_to_user(to, s->data + s->pos, bytes))
		return -EFAULT;
	s->pos += bytes;
	return bytes;
}

static ssize_t dmalog_stream_write(struct file *file, const char __user *from, size_t bytes,
				   loff_t *pos)
{
	struct dmalog_stream *s = file->private_data;

	guard(mutex)(&s->lock);
	if (s->over)
		return -ENODEV;
	if (bytes > s->room - s->size)
		return -ENOSPC;
	if (copy_from_user(s->data + s->size, from, bytes))
		return -EFAULT;
	s->size += bytes;
	return bytes;
}

static long dmalog_stream_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct dmalog_stream *s = file->private_data;
	struct vfio_precopy_info info;

	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, sizeof(info)))
		return -EFAULT;
	if (info.argsz < sizeof(info))
		return -EINVAL;
	guard(mutex)(&s->lock);
	if (s->over)
		return -ENODEV;
	if (s->final)
		return -EINVAL;
	info.flags = 0;
	info.initial_bytes = s->initial - min(s->initial, s->pos);
	info.dirty_bytes = s->size - max(s->initial, s->pos);
	return copy_to_user((void __user *)arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static int dmalog_stream_release(struct inode *inode, struct file *file)
{
	struct dmalog_stream *s = file->private_data;

	kvfree(s->data);
	kfree(s);
	return 0;
}

static const struct file_operations dmalog_stream_fops = {
	.owner = THIS_MODULE,
	.read = dmalog_stream_read,
	.write = dmalog_stream_write,
	.unlocked_ioctl = dmalog_stream_ioctl,
	.release = dmalog_stream_release,
};

static struct dmalog_stream *dmalog_stream_open(int mode, u64 blob_bytes)
{
	struct dmalog_stream *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return ERR_PTR(-ENOMEM);
	mutex_init(&s->lock);
	s->final = mode == O_WRONLY;
	s->room = sizeof(struct dmalog_head) + blob_bytes + DMALOG_MOST_DELTA +
		  sizeof(struct dmalog_tail);
	s->data = kvmalloc(s->room, GFP_KERNEL);
	s->file = ERR_PTR(-ENOMEM);
	if (s->data)
		s->file = anon_inode_getfile("dmalog", &dmalog_stream_fops, s, mode);
	if (IS_ERR(s->file)) {
		struct dmalog_stream *failed = ERR_CAST(s->file);

		kvfree(s->data);
		kfree(s);
		return failed;
	}
	stream_open(s->file->f_inode, s->file);
	return s;
}

static void dmalog_stream_end(struct dmalog *d)
{
	if (!d->stream)
		return;
	mutex_lock(&d->stream->lock);
	d->stream->over = true;
	mutex_unlock(&d->stream->lock);
	fput(d->stream->file);
	d->stream = NULL;
}

static void dmalog_save_head(struct dmalog *d, struct dmalog_stream *s)
{
	struct dmalog_head *head = s->data;
	u64 i, *blob = (u64 *)(head + 1);

	head->magic = DMALOG_MAGIC;
	head->blob_bytes = d->reg[DMALOG_BLOB_BYTES];
	head->blob_seed = d->reg[DMALOG_BLOB_SEED];
	for (i = 0; i < head->blob_bytes / sizeof(u64); i++)
		blob[i] = mix(head->blob_seed + i);
	s->initial = s->size = sizeof(*head) + head->blob_bytes;
}

static int dmalog_save_delta(struct dmalog *d, u64 bytes)
{
	struct dmalog_stream *s = d->stream;

	if (!s || s->final)
		return -EINVAL;
	guard(mutex)(&s->lock);
	if (bytes > s->initial + DMALOG_MOST_DELTA - s->size)
		return -ENOSPC;
	memset(s->data + s->size, 0, bytes);
	s->size += bytes;
	return 0;
}

static void dmalog_save_tail(struct dmalog *d, struct dmalog_stream *s)
{
	struct dmalog_tail tail = { .delta_bytes = s->size - s->initial };

	memcpy(tail.program, d->reg + DMALOG_DMA_IOVA, sizeof(tail.program));
	guard(mutex)(&s->lock);
	memcpy(s->data + s->size, &tail, sizeof(tail));
	s->size += sizeof(tail);
	s->final = true;
}

/* Believes nothing: a stream comes from outside. */
static int dmalog_load(struct dmalog *d, struct dmalog_stream *s)
{
	const u64 fixed = sizeof(struct dmalog_head) + sizeof(struct dmalog_tail);
	struct dmalog_head *head = s->data;
	struct dmalog_tail tail;
	u64 i, bytes, *blob = (u64 *)(head + 1);

	guard(mutex)(&s->lock);
	if (s->size < fixed || head->magic != DMALOG_MAGIC ||
	    head->blob_bytes > s->size - fixed || head->blob_bytes % sizeof(u64))
		return -EINVAL;
	memcpy(&tail, s->data + s->size - sizeof(tail), sizeof(tail));
	bytes = tail.program[DMALOG_DMA_BYTES - DMALOG_DMA_IOVA];
	if (tail.delta_bytes != s->size - fixed - head->blob_bytes || !bytes || bytes > PAGE_SIZE)
		return -EINVAL;
	for (i = 0; i < head->blob_bytes / sizeof(u64); i++)
		if (blob[i] != mix(head->blob_seed + i))
			return -EINVAL;
	d->reg[DMALOG_BLOB_BYTES] = head->blob_bytes;
	d->reg[DMALOG_BLOB_SEED] = head->blob_seed;
	memcpy(d->reg + DMALOG_DMA_IOVA, tail.program, sizeof(tail.program));
	return 0;
}

/* One arc; returns the file of a stream that it opened, NULL or an error. */
static struct file *dmalog_go(struct dmalog *d, enum vfio_device_mig_state next)
{
	bool loads = next == VFIO_DEVICE_STATE_RESUMING;
	bool stops = next == VFIO_DEVICE_STATE_STOP_COPY;
	int ret = 0;

	if (is_pre_copy(d->state) && (is_pre_copy(next) || stops)) {
		if (stops)
			dmalog_save_tail(d, d->stream);
		return NULL;
	}
	if (d->state == VFIO_DEVICE_STATE_RESUMING) {
		ret = dmalog_load(d, d->stream);
		if (ret)
			return ERR_PTR(ret);
	}
	dmalog_stream_end(d);
	if (!loads && !stops && !is_pre_copy(next))
		return NULL;
	d->stream = loads ? dmalog_stream_open(O_WRONLY, DMALOG_MOST_BLOB) :
			    dmalog_stream_open(O_RDONLY, d->reg[DMALOG_BLOB_BYTES]);
	if (IS_ERR(d->stream)) {
		ret = PTR_ERR(d->stream);
		d->stream = NULL;
		return ERR_PTR(ret);
	}
	if (!loads)
		dmalog_save_head(d, d->stream);
	if (stops)
		dmalog_save_tail(d, d->stream);
	return get_file(d->stream->file);
}

static struct file *dmalog_set_state(struct vfio_device *vdev, enum vfio_device_mig_state new)
{
	struct dmalog *d = to_dmalog(vdev);
	struct file *file = NULL;

	guard(rwsem_write)(&d->sem);
	while (d->state != new && !file) {
		enum vfio_device_mig_state next;
		/* Asked from ERROR, the kernel would warn. */
		int ret = d->state == VFIO_DEVICE_STATE_ERROR ? -EINVAL :
			  vfio_mig_get_next_state(vdev, d->state, new, &next);

		if (!ret && d->reg[DMALOG_FAIL_STATE]) {
			ret = -d->reg[DMALOG_FAIL_STATE];
			d->reg[DMALOG_FAIL_STATE] = 0;
			dmalog_stream_end(d);
			WRITE_ONCE(d->state, VFIO_DEVICE_STATE_ERROR);
		}
		file = ret ? ERR_PTR(ret) : dmalog_go(d, next);
		if (!IS_ERR(file))
			WRITE_ONCE(d->state, next);
	}
	wake_up_all(&d->wait);
	return file;
}

static int dmalog_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *now)
{
	*now = READ_ONCE(to_dmalog(vdev)->state);
	return 0;
}

static int dmalog_get_data_size(struct vfio_device *vdev, unsigned long *bytes)
{
	*bytes = setting(to_dmalog(vdev), DMALOG_BLOB_BYTES) + sizeof(struct dmalog_head) +
		 sizeof(struct dmalog_tail);
	return 0;
}

static const struct vfio_migration_ops dmalog_migration_ops = {
	.migration_set_state = dmalog_set_state,
	.migration_get_state = dmalog_get_state,
	.migration_get_data_size = dmalog_get_data_size,
};

/* Regions */

static int dmalog_set(struct dmalog *d, u64 r, u64 value)
{
	if (r >= DMALOG_FIRST_COUNTER)
		return -EACCES;
	if (r == DMALOG_DMA_BURST)
		return dmalog_burst(d, value);
	if (r == DMALOG_MARK_DELAY) {
		/* Without the semaphore, which the delayed hold. */
		dmalog_set_delay(d, value);
		return 0;
	}
	if ((r == DMALOG_PAGE_SIZES && (!value || value & (PAGE_SIZE - 1))) ||
	    (r == DMALOG_MAX_RANGES && (!value || value > DMALOG_MOST_RANGES)) ||
	    (r == DMALOG_DMA_BYTES && (!value || value > PAGE_SIZE)) ||
	    (r == DMALOG_BLOB_BYTES && (value > DMALOG_MOST_BLOB || value % sizeof(u64))) ||
	    ((r == DMALOG_FAIL_START || r == DMALOG_FAIL_STATE) && value > MAX_ERRNO))
		return -EINVAL;
	guard(rwsem_write)(&d->sem);
	if (r == DMALOG_PRECOPY_DIRTY)
		return dmalog_save_delta(d, value);
	if (r == DMALOG_CLEAR) {
		pages_free(&d->record);
		memset(d->reg + DMALOG_WRITES, 0, (DMALOG_IN_FLIGHT - DMALOG_WRITES) * sizeof(u64));
		return 0;
	}
	WRITE_ONCE(d->reg[r], value);
	wake_up_all(&d->wait);
	return 0;
}

static ssize_t dmalog_read_record(struct dmalog *d, char __user *to, size_t bytes, u64 at)
{
	const u64 size = CHUNK_BITS / BITS_PER_BYTE;
	void *chunk;

	bytes = min_t(u64, bytes, size - at % size);
	guard(rwsem_read)(&d->sem);
	chunk = xa_load(&d->record, at / size);
	if (chunk ? copy_to_user(to, chunk + at % size, bytes) : clear_user(to, bytes))
		return -EFAULT;
	return bytes;
}

static ssize_t dmalog_access_memory(struct dmalog *d, char __user *user, size_t wanted, u64 iova,
				    bool write)
{
	size_t bytes = min_t(size_t, wanted, DMALOG_MOST_DMA);
	void *data __free(kvfree) = kvzalloc(bytes, GFP_KERNEL);
	int ret;

	if (!data)
		return -ENOMEM;
	if (write && copy_from_user(data, user, bytes))
		return -EFAULT;
	ret = dmalog_dma(d, iova, data, bytes, write);
	if (ret)
		return ret;
	return !write && copy_to_user(user, data, bytes) ? -EFAULT : bytes;
}

static ssize_t dmalog_access(struct vfio_device *vdev, char __user *user, size_t bytes, u64 at,
			     bool write)
{
	struct dmalog *d = to_dmalog(vdev);
	u64 r = at / sizeof(u64), value;

	if (!bytes)
		return 0;
	if (at >= DMALOG_DMA)
		return dmalog_access_memory(d, user, bytes, at - DMALOG_DMA, write);
	if (at >= DMALOG_RECORD)
		return write ? -EACCES : dmalog_read_record(d, user, bytes, at - DMALOG_RECORD);
	if (bytes != sizeof(u64) || at % sizeof(u64) || r >= DMALOG_REGISTERS)
		return -EINVAL;
	if (write)
		return copy_from_user(&value, user, bytes) ? -EFAULT :
		       dmalog_set(d, r, value) ?: bytes;
	value = setting(d, r);
	return copy_to_user(user, &value, bytes) ? -EFAULT : bytes;
}

static ssize_t dmalog_read(struct vfio_device *vdev, char __user *to, size_t bytes, loff_t *pos)
{
	return dmalog_access(vdev, to, bytes, *pos, false);
}

static ssize_t dmalog_write(struct vfio_device *vdev, const char __user *from,
			    size_t bytes, loff_t *pos)
{
	return dmalog_access(vdev, (char __user *)from, bytes, *pos, true);
}

/* The device */

static int dmalog_reset(struct dmalog *d)
{
	guard(rwsem_write)(&d->sem);
	/* The log stays: a reset wrote nothing, and what was written is dirty. */
	dmalog_stream_end(d);
	WRITE_ONCE(d->reg[DMALOG_DMA_RUN], 0);
	WRITE_ONCE(d->state, VFIO_DEVICE_STATE_RUNNING);
	return 0;
}

static long dmalog_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	unsigned long minsz = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info;

	if (cmd == VFIO_DEVICE_RESET)
		return dmalog_reset(to_dmalog(vdev));
	if (cmd != VFIO_DEVICE_GET_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = 3;
	info.num_irqs = 0;
	return copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
}

static int dmalog_open(struct vfio_device *vdev)
{
	struct dmalog *d = to_dmalog(vdev);
	struct task_struct *thread;

	memset(d->reg, 0, sizeof(d->reg));
	d->reg[DMALOG_PAGE_SIZES] = SZ_4K | SZ_64K | SZ_2M;
	d->reg[DMALOG_MAX_RANGES] = DMALOG_MOST_RANGES;
	d->reg[DMALOG_MAX_SPAN] = U64_MAX;
	d->reg[DMALOG_CLIP] = 1;
	d->reg[DMALOG_QUIESCE] = 1;
	d->reg[DMALOG_DMA_BYTES] = sizeof(u64);
	d->state = VFIO_DEVICE_STATE_RUNNING;
	thread = kthread_run(dmalog_thread, d, "%s", dev_name(vdev->dev));
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	d->thread = thread;
	return 0;
}

static void dmalog_close(struct vfio_device *vdev)
{
	struct dmalog *d = to_dmalog(vdev);

	WRITE_ONCE(d->reg[DMALOG_DMA_RUN], 0);
	dmalog_set_delay(d, 0);
	kthread_stop(d->thread);
	dmalog_stream_end(d);
	dmalog_forget(d);
	pages_free(&d->record);
}

static void dmalog_request(struct vfio_device *vdev, unsigned int times)
{
	count(to_dmalog(vdev), DMALOG_REMOVAL, 1);
}

static int dmalog_init(struct vfio_device *vdev)
{
	struct dmalog *d = to_dmalog(vdev);

	init_rwsem(&d->sem);
	spin_lock_init(&d->lock);
	init_waitqueue_head(&d->wait);
	xa_init(&d->log);
	xa_init(&d->record);
	vdev->log_ops = &dmalog_log_ops;
	vdev->migration_flags = flags[to_platform_device(vdev->dev)->id];
	if (vdev->migration_flags)
		vdev->mig_ops = &dmalog_migration_ops;
	return 0;
}

static const struct vfio_device_ops dmalog_ops = {
	.name = "dmalog",
	.init = dmalog_init,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
	.open_device = dmalog_open,
	.close_device = dmalog_close,
	.read = dmalog_read,
	.write = dmalog_write,
	.ioctl = dmalog_ioctl,
	.request = dmalog_request,
};

static int dmalog_probe(struct platform_device *pdev)
{
	struct dmalog *d;
	int ret;

	d = vfio_alloc_device(dmalog, vdev, &pdev->dev, &dmalog_ops);
	if (IS_ERR(d))
		return PTR_ERR(d);
	platform_set_drvdata(pdev, d);
	ret = vfio_register_emulated_iommu_dev(&d->vdev);
	if (ret)
		vfio_put_device(&d->vdev);
	return ret;
}

static void dmalog_remove(struct platform_device *pdev)
{
	struct dmalog *d = platform_get_drvdata(pdev);

	vfio_unregister_group_dev(&d->vdev);
	vfio_put_device(&d->vdev);
}

static struct platform_driver dmalog_driver = {
	.driver = { .name = "dmalog" },
	.probe = dmalog_probe,
	.remove = dmalog_remove,
};

static void dmalog_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(devices); i++)
		platform_device_unregister(devices[i]);
	platform_driver_unregister(&dmalog_driver);
}

static int __init dmalog_start(void)
{
	int i, ret = platform_driver_register(&dmalog_driver);

	for (i = 0; !ret && i < ARRAY_SIZE(devices); i++) {
		devices[i] = platform_device_register_simple("dmalog", i, NULL, 0);
		if (IS_ERR(devices[i])) {
			ret = PTR_ERR(devices[i]);
			dmalog_exit();
		}
	}
	return ret;
}

module_init(dmalog_start);
module_exit(dmalog_exit);

MODULE_IMPORT_NS(IOMMUFD);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("VFIO devices without hardware, for Tidemark's tests");
